"""Load a model and its processor by one name, be it a folder, a run, a hub name or a tiny model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.names import did_you_mean
from balanced_thinking.models.find import (
    TINY_PREFIX,
    ModelNotFoundError,
    TinySize,
    adapter_base_name,
    describe_missing_model,
    find_model_source,
    how_to_add_processor,
)
from balanced_thinking.models.graft import graft_language_model
from balanced_thinking.models.tiny import ImageOnlyQwen2_5_VLProcessor, build_tiny


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
    **from_pretrained: Any,
) -> LoadedModel:
    """Load a model and its processor.

    A LoRA adapter is loaded on the base that it names, and merged. As in TRL, weights are float32 unless `dtype` says
    otherwise: autocast makes low-precision copies.

    Args:
        name: `world-base` (the embedded base), `tiny:qwen2_5_vl` (random weights), a run directory, the folder of a
            checkpoint or an adapter, or a hub name.
        seed: of the random weights of a `tiny:` model.
        size: widths and depths of a `tiny:` model.
        image_options: options of the image processor, such as `max_pixels`; they are saved with it.
        from_pretrained: other arguments of `from_pretrained`. A `tiny:` model takes `attn_implementation` and
            `language_from`, the model whose language model it starts from.
    """
    if name.startswith(TINY_PREFIX):
        if image_options:
            raise ValueError(
                f"image_options is {dict(image_options)}, but a tiny model has none; set model_size.image_side"
            )
        return LoadedModel(*_build_tiny_model(name.removeprefix(TINY_PREFIX), seed, size, **from_pretrained))
    path = find_model_source(name)
    if (base := adapter_base_name(path)) is not None:
        return _load_adapter(path, base, image_options, from_pretrained)
    auto = AutoModelForImageTextToText if _is_vision_model(path) else AutoModelForCausalLM
    from_pretrained.setdefault("dtype", torch.float32)
    try:
        model = auto.from_pretrained(path, **from_pretrained)
    except (TypeError, AttributeError) as error:  # what transformers and torch raise for an unknown name
        if from_pretrained.keys() == {"dtype"} and isinstance(from_pretrained["dtype"], torch.dtype):
            raise
        raise ValueError(
            f"model_options is {from_pretrained}, which from_pretrained refuses: {error}; correct or remove that option"
        ) from error
    return LoadedModel(model, load_processor(path, image_options), path)


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
        tokenizers = [getattr(one, "tokenizer", one) for one in (processor, donor.processor)]
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
    config = _load_config(path)
    return config.dtype or config.get_text_config().dtype or torch.float32


def load_processor(name: str, image_options: Mapping[str, Any] | None = None) -> Any:
    """The processor of a model, or its tokenizer for a text-only model; `name` as for `load_model`.

    Raises ValueError for an image option that the image processor does not have.
    """
    if name.startswith(TINY_PREFIX):
        return build_tiny(name.removeprefix(TINY_PREFIX))[1]
    path = find_model_source(name)
    if (base := adapter_base_name(path)) is not None:  # an adapter has no configuration of its own
        if not (Path(path) / "tokenizer_config.json").is_file():
            return load_processor(base, image_options)
        return _load_checked_processor(path, _is_vision_model(find_model_source(base)), image_options or {})
    return _load_checked_processor(path, _is_vision_model(path), image_options or {})


def _load_checked_processor(path: str, vision: bool, image_options: Mapping[str, Any]) -> Any:
    declared = Path(path) / "processor_config.json"
    kind = json.loads(declared.read_text()).get("processor_class") if declared.is_file() else None
    if kind == ImageOnlyQwen2_5_VLProcessor.__name__:
        processor = _load_image_only_qwen(path, image_options)
    else:
        processor = _from_pretrained(AutoProcessor if vision else AutoTokenizer, path, image_options if vision else {})
    if vision and not hasattr(processor, "image_processor"):  # transformers gives the tokenizer alone then
        raise ModelNotFoundError(
            f"{path} has no processor for images; expected its files beside config.json{how_to_add_processor(path)}"
        )
    # transformers ignores unknown names silently.
    images = getattr(processor, "image_processor", None)
    known = getattr(getattr(images, "valid_kwargs", None), "__annotations__", {})
    for option in image_options:
        if option not in known:
            expected = f"known: {', '.join(sorted(known))}" if known else "this model takes no images"
            raise RecipeError(f"image_options has {option!r}{did_you_mean(option, known)}; {expected}")
    return processor


def _from_pretrained(auto: Any, path: str, options: Mapping[str, Any]) -> Any:
    """Raises ModelNotFoundError if there is no processor or tokenizer to load."""
    try:
        return auto.from_pretrained(path, **options)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if options and not isinstance(error, OSError):
            raise RecipeError(
                f"image_options is {dict(options)}, but the image processor refuses it: {error}"
            ) from error
        if not Path(path).is_dir():
            raise OSError(f"the processor of {path} cannot be loaded from the hub: {error}") from error
        what = "tokenizer" if auto is AutoTokenizer else "processor"
        raise ModelNotFoundError(
            f"{path} has no {what} that transformers can load ({error}); expected its files beside config.json"
            f"{how_to_add_processor(path)}"
        ) from error


def _load_image_only_qwen(path: str, image_options: Mapping[str, Any]) -> ImageOnlyQwen2_5_VLProcessor:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    tokenizer = _from_pretrained(AutoTokenizer, path, {})
    images = _from_pretrained(Qwen2VLImageProcessorPil, path, image_options)
    return ImageOnlyQwen2_5_VLProcessor(images, tokenizer, chat_template=tokenizer.chat_template)


def _load_config(path: str) -> Any:
    """Raises OSError, with the places where it was looked for, if there is no such model."""
    try:
        return AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        folder = Path(path)
        if not folder.is_dir():
            raise OSError(f"there is no folder {path}, and it cannot be loaded from the hub: {error}") from error
        if (folder / "config.json").is_file():
            raise
        raise ModelNotFoundError(describe_missing_model(folder)) from error


def _is_vision_model(path: str) -> bool:
    return type(_load_config(path)) in AutoModelForImageTextToText._model_mapping


def _load_adapter(
    path: str, base: str, image_options: Mapping[str, Any] | None, from_pretrained: dict[str, Any]
) -> LoadedModel:
    from peft import PeftModel

    loaded = load_model(base, image_options=image_options, **from_pretrained)
    merged = PeftModel.from_pretrained(loaded.model, path).merge_and_unload()
    if (Path(path) / "tokenizer_config.json").is_file():  # its own processor, which may scale images differently
        vision = hasattr(loaded.processor, "image_processor")
        return LoadedModel(merged, _load_checked_processor(path, vision, image_options or {}))
    return LoadedModel(merged, loaded.processor)


def ensure_saved(loaded: LoadedModel, folder: Path) -> LoadedModel:
    """The model with a `source`: saved to `folder` if it has none.

    An adapter's base and a reference model are found again by that name.
    """
    if loaded.source is not None:
        return loaded
    if not (folder / "config.json").is_file():
        loaded.model.save_pretrained(folder)
        loaded.processor.save_pretrained(folder)
    loaded.model.config._name_or_path = loaded.model.name_or_path = str(folder)
    return replace(loaded, source=str(folder))
