"""Load a model and its processor by one name, be it a folder, a run, a hub name or a tiny model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from balanced_thinking.models.find import (
    TINY_PREFIX,
    ModelNotFoundError,
    TinySize,
    adapter_base_name,
    find_model_source,
)
from balanced_thinking.models.fold import fold_adapter
from balanced_thinking.models.graft import graft_language_model
from balanced_thinking.models.outline import outline_model
from balanced_thinking.models.parts import ModelParts
from balanced_thinking.models.processor import (
    is_vision_model,
    load_checked_processor,
    load_config,
    load_processor,
    refuse_tiny_image_options,
)
from balanced_thinking.models.processor_parts import takes_pictures, tokenizer_of
from balanced_thinking.models.quantization import (
    as_it_was_trained,
    dequantize,
    quantization_config,
    read_base_quantization,
    use_one_product,
)
from balanced_thinking.models.revisions import pin_revision
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.models.verify import refuse_altered_model
from balanced_thinking.models.vocabulary import check_vocabulary
from balanced_thinking.models.weights import load_adapter_weights, load_checked_model, refuse_unmergeable
from balanced_thinking.runs.staging import write_folder

logger = logging.getLogger(__name__)

__all__ = ["LoadedModel", "checkpoint_dtype", "ensure_saved", "load_model", "load_processor"]


@dataclass(frozen=True)
class LoadedModel:
    """A model and what prepares its input.

    Attributes:
        model: the transformers model.
        processor: its processor, or the tokenizer of a text-only model.
        source: the folder or hub name that holds these very weights; None for random ones and for a merged adapter.
    """

    model: Any
    processor: Any
    source: str | None = None


def load_model(
    name: str,
    *,
    seed: int = 0,
    size: TinySize | None = None,
    image_options: Mapping[str, Any] | None = None,
    allow_missing: Sequence[str] = (),
    quantization: str | None = None,
    **from_pretrained: Any,
) -> LoadedModel:
    """Load a model and its processor.

    A LoRA adapter is loaded on the base that it names, and merged. The base of a QLoRA run is quantized as it was in
    training, and made dense again, before the adapter is merged into it. As in TRL, weights are float32 unless `dtype`
    says otherwise: autocast makes low-precision copies.

    Args:
        name: `world-base` or `world-reasoner` (embedded), `tiny:qwen2_5_vl` (random weights), a run directory, the
            folder of a checkpoint or an adapter, or a hub name, with a revision as `OWNER/NAME@REVISION`.
        seed: of the random weights of a `tiny:` model, and of tensors that `allow_missing` allows.
        size: widths and depths of a `tiny:` model.
        image_options: options of the image processor, such as `max_pixels`; they are saved with it.
        allow_missing: names or patterns of tensors that the files may lack, have in another shape or have in excess,
            such as `lm_head`.
        quantization: nf4 or int8, of the language model's linear layers. An adapter then stays beside its quantized
            base, as in the training of QLoRA.
        from_pretrained: other arguments of `from_pretrained`. A `tiny:` model takes `attn_implementation` and
            `language_from`, the model whose language model it starts from.

    Raises:
        ModelNotFoundError: there is no such model, or it lacks its processor.
        WeightsError: its weights are not complete, not readable or not finite.
        VocabularyError: its tokenizer has ids that its embedding does not have.
    """
    if name.startswith(TINY_PREFIX):
        refuse_tiny_image_options(image_options)
        if quantization is not None:
            raise ValueError(f"quantization is {quantization!r}, but {name} has no stored weights; save it first")
        return LoadedModel(*_build_tiny_model(name.removeprefix(TINY_PREFIX), seed, size, **from_pretrained))
    path = find_model_source(pin_revision(name, from_pretrained.pop("revision", None)))
    if (base := adapter_base_name(path)) is not None:
        base_options = {"image_options": image_options, "allow_missing": allow_missing, "quantization": quantization}
        return _load_adapter(path, base, base_options, from_pretrained)
    if Path(path).is_dir():
        path = str(Path(path).absolute())  # an adapter trained on it names it so, and is loaded from any folder
    auto = AutoModelForImageTextToText if is_vision_model(path) else AutoModelForCausalLM
    from_pretrained.setdefault("dtype", torch.float32)
    if quantization is not None:
        from_pretrained["quantization_config"] = _quantize_language(path, quantization, from_pretrained["dtype"])
    try:
        with torch.random.fork_rng(devices=[], enabled=bool(allow_missing)):
            if allow_missing:
                torch.manual_seed(seed)
            model, random_tensors = load_checked_model(auto, path, allow_missing, from_pretrained)
    except (TypeError, AttributeError) as error:  # what transformers and torch raise for an unknown name
        if from_pretrained.keys() == {"dtype"} and isinstance(from_pretrained["dtype"], torch.dtype):
            raise
        raise ValueError(
            f"model_options is {from_pretrained}, which from_pretrained refuses: {error}; correct or remove that option"
        ) from error
    use_one_product(model)
    processor = load_processor(path, image_options)
    check_vocabulary(model, processor, path)
    return LoadedModel(model, processor, None if random_tensors else path)


def _quantize_language(path: str, quantization: str, dtype: Any) -> Any:
    kept = ModelParts(outline_model(path)).unquantized_modules()
    return quantization_config(quantization, _resolve_dtype(dtype, path), kept)


def _build_tiny_model(
    architecture: str,
    seed: int,
    size: TinySize | None,
    language_from: str | None = None,
    attn_implementation: str | None = None,
    **unknown: Any,
) -> tuple[Any, Any]:
    if unknown:
        known = "language_from, attn_implementation"
        raise ValueError(f"model_options of a tiny model: found {', '.join(sorted(unknown))}; known: {known}")
    model, processor = build_tiny(architecture, seed=seed, size=size)
    if language_from is not None:
        donor = load_model(language_from)
        tokenizers = [tokenizer_of(one) for one in (processor, donor.processor)]
        graft_language_model(model, tokenizers[0], donor.model, tokenizers[1])
    if attn_implementation is not None:
        model.set_attn_implementation(attn_implementation)
    return model, processor


def checkpoint_dtype(name: str) -> torch.dtype:
    """The dtype in the configuration of a checkpoint, or of an adapter's base; float32 where there is none."""
    if name.startswith(TINY_PREFIX):
        return torch.float32
    path = find_model_source(name)
    if (base := adapter_base_name(path)) is not None:
        return checkpoint_dtype(base)
    config = load_config(path)
    return config.dtype or config.get_text_config().dtype or torch.float32


def _load_adapter(
    path: str, base: str, base_options: Mapping[str, Any], from_pretrained: Mapping[str, Any]
) -> LoadedModel:
    refuse_unmergeable(path)
    trained, quantization = read_base_quantization(path), base_options["quantization"]
    if quantization is not None and _is_adapter(base):
        raise ValueError(
            f"{path} is an adapter on the adapter {base}, which cannot be quantized: leave quantization out"
        )
    restored = as_it_was_trained(trained) if trained and quantization is None else {}
    try:
        loaded = load_model(base, **base_options, **{**from_pretrained, **restored})
    except OSError as error:
        raise ModelNotFoundError(
            f"{path} is an adapter on the base model {base}, which cannot be loaded: {error}"
        ) from error
    model, processor = loaded.model, loaded.processor
    if restored:
        model = dequantize(model, _resolve_dtype(from_pretrained.get("dtype"), base))
    if (Path(path) / "tokenizer_config.json").is_file():  # its own, which may scale images differently
        has_pictures = takes_pictures(processor)
        processor = load_checked_processor(path, has_pictures, base_options["image_options"] or {})
    adapted = load_adapter_weights(model, path, base_options["allow_missing"])
    check_vocabulary(adapted, processor, path)
    return LoadedModel(fold_adapter(adapted) if quantization is None else adapted, processor)


def _is_adapter(name: str) -> bool:
    return not name.startswith(TINY_PREFIX) and adapter_base_name(find_model_source(name)) is not None


def _resolve_dtype(dtype: Any, name: str) -> torch.dtype:
    """A `dtype` of from_pretrained as torch's; `auto` is the checkpoint's own."""
    if dtype == "auto":
        return checkpoint_dtype(name)
    return getattr(torch, dtype) if isinstance(dtype, str) else dtype or torch.float32


def ensure_saved(loaded: LoadedModel, folder: Path) -> LoadedModel:
    """The model with a `source`: saved to `folder` if it has none.

    An adapter's base and a reference model are found again by that name, from whatever folder.
    """
    if loaded.source is not None:
        return loaded
    with PartialState().main_process_first():  # which saves it
        if not (folder / "config.json").is_file():
            logger.info("the base is saved to %s: no folder and no name on the hub has these weights", folder)
            with write_folder(folder, about={"kind": "base"}) as staged:
                loaded.model.save_pretrained(staged)
                loaded.processor.save_pretrained(staged)
    refuse_altered_model(folder)
    source = str(folder.absolute())
    loaded.model.config._name_or_path = loaded.model.name_or_path = source
    return replace(loaded, source=source)
