"""Write what loads everywhere: weights, processor, chat template, and where generation stops."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from balanced_thinking.export.samples import stop_tokens
from balanced_thinking.models.adapters import BASE_KEY, is_hub_name
from balanced_thinking.models.find import EMBEDDED, adapter_base_name, find_model_source, read_json_mapping
from balanced_thinking.models.load import LoadedModel
from balanced_thinking.models.parts import count_numbers
from balanced_thinking.models.processor_parts import tokenizer_of
from balanced_thinking.models.quantization import QUANTIZATION_FILE
from balanced_thinking.models.revisions import split_revision
from balanced_thinking.models.tiny import ImageOnlyQwen2_5_VLProcessor
from balanced_thinking.runs.manifest import MANIFEST
from balanced_thinking.runs.paths import RunFiles
from balanced_thinking.training.failed_saves import free_bytes
from balanced_thinking.training.space import NoSpaceError

logger = logging.getLogger(__name__)
_SHARD = "5GB"  # of weights, as on the hub
# Settings of a base that change what greedy generation writes, or turn it into sampling.
_NOT_GREEDY = (
    *("do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p"),
    *("repetition_penalty", "no_repeat_ngram_size", "num_beams"),
)
_NARROW = ImageOnlyQwen2_5_VLProcessor.__name__
_COMPLETE = "Qwen2_5_VLProcessor"
_WITH_PROCESSOR_CLASS = ("processor_config.json", "tokenizer_config.json")
_VIDEO = {"video_processor_type": "Qwen2VLVideoProcessor"}
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", QUANTIZATION_FILE)


def generation_settings(loaded: LoadedModel) -> GenerationConfig:
    """Greedy, and stopping at every token at which our evaluation stops: what the run's results were measured with."""
    tokenizer = tokenizer_of(loaded.processor)
    own = loaded.model.generation_config
    return GenerationConfig(
        do_sample=False,
        eos_token_id=stop_tokens(loaded),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=getattr(own, "bos_token_id", None) or tokenizer.bos_token_id,
    )


def left_out_settings(loaded: LoadedModel) -> dict[str, Any]:
    """What the base's generation configuration has in addition, and would change the answers."""
    own, plain = loaded.model.generation_config, GenerationConfig()
    values = {name: getattr(own, name, None) for name in _NOT_GREEDY}
    return {name: value for name, value in values.items() if value not in (None, False, getattr(plain, name, None))}


def write_complete(loaded: LoadedModel, folder: Path) -> None:
    """Weights (safetensors, in shards of 5 GB), configuration, processor and chat template."""
    loaded.model.generation_config = generation_settings(loaded)
    loaded.model.save_pretrained(folder, max_shard_size=_SHARD)
    loaded.processor.save_pretrained(folder)
    complete_processor(folder)


def write_adapter(loaded: LoadedModel, source: Path, folder: Path, final: Path) -> str:
    """The adapter as it is, with processor and generation configuration, and a copy of its base where it needs one.

    Returns the base as the adapter names it: a hub name, or a folder by its absolute path. `final` is the name that
    `folder` will have. A base inside a run, or in this package, is found by nobody else, so it is copied.
    """
    for name in _ADAPTER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    loaded.processor.save_pretrained(folder)
    complete_processor(folder)
    generation_settings(loaded).save_pretrained(folder)
    base = adapter_base_name(str(source)) or ""
    if not is_hub_name(base):
        place = Path(find_model_source(base))
        if place.name in EMBEDDED or _is_in_run(place) or place.is_relative_to(source.absolute()):
            copied = RunFiles(folder).base_model
            # Without its manifest: that of the exported folder lists the copy, too.
            shutil.copytree(place, copied, ignore=shutil.ignore_patterns(MANIFEST, "checkpoint-*", "*.pt", "*.pth"))
            complete_processor(copied)
            place = RunFiles(final).base_model
            logger.info("a copy of the base is written to %s, because others cannot rely on %s", place, base)
        base = os.path.abspath(place)
    config = read_json_mapping(folder / _ADAPTER_FILES[0]) | {BASE_KEY: split_revision(base).name}
    (folder / _ADAPTER_FILES[0]).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return base


def _is_in_run(place: Path) -> bool:
    """Whether a model's folder is a part of a run, which may be deleted."""
    return any(RunFiles(parent).config.is_file() for parent in place.absolute().parents[:2])


def complete_processor(folder: Path) -> None:
    """Give the processor of a tiny or embedded Qwen2.5-VL its video half, which ours leaves out.

    transformers knows the complete class only. Other processors are complete.
    """
    for name in _WITH_PROCESSOR_CLASS:
        file = folder / name
        values = read_json_mapping(file) if file.is_file() else {}
        if values.get("processor_class") != _NARROW:
            continue
        values["processor_class"] = _COMPLETE
        if (images := values.get("image_processor")) is not None:
            values["video_processor"] = {k: v for k, v in images.items() if k != "image_processor_type"} | _VIDEO
        file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def check_space(model: Any, out: Path) -> None:
    """Raises NoSpaceError where the weights do not fit on the disk of `out`, which need not exist."""
    needed = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    free = free_bytes(out)
    if needed > free:
        raise NoSpaceError(
            f"the weights need {needed / 2**30:.1f} GiB, and the disk of {out} has {free / 2**30:.1f} GiB free; choose "
            "another --out, or a --dtype of 16 bits"
        )


def parameter_count(model: Any) -> int:
    """Parameters, those that are shared once; a quantized one counts by its numbers."""
    return sum(count_numbers(parameter) for parameter in model.parameters())
