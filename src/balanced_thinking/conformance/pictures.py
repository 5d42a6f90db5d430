"""Smaller pictures for a shrunken copy: few tokens each, so that a check takes seconds.

Families that fit a picture's own size to a budget (Qwen-VL, Pixtral, GLM) need nothing: the samples' pictures are
small. Those below scale every picture to a fixed size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from transformers import PreTrainedConfig

from balanced_thinking.models.processor_parts import takes_pictures

_PATCHES = 4  # along a side of a picture
_Changes = dict[str, dict[str, Any]]  # "" (the processor) or the name of a part of it -> attributes


def shrink_pictures(config: PreTrainedConfig, processor: Any) -> _Changes:
    """Change `config` for smaller pictures, and return the attributes that the processor needs for them.

    {} where the family needs none or is not known.
    """
    family = _FAMILIES.get(config.model_type)
    return family(config, processor) if family and takes_pictures(processor) else {}


def _small_side(config: PreTrainedConfig, patches: int = _PATCHES) -> int:
    patch = config.vision_config.patch_size
    return patches * (patch if isinstance(patch, int) else patch[0])


def _set_side(config: PreTrainedConfig, side: int) -> int:
    """Set the side of the vision part's pictures, in pixels, and return what it was."""
    old = config.vision_config.image_size
    config.vision_config.image_size = side if isinstance(old, int) else [side] * len(old)
    return old if isinstance(old, int) else old[0]


def _scaled_sizes(images: Any, side: int) -> dict[str, Any]:
    """`size` and `crop_size` of an image processor, with each number that it has replaced by `side`."""
    found = {name: getattr(images, name, None) for name in ("size", "crop_size")}
    return {name: dict.fromkeys(dict(value), side) for name, value in found.items() if value}


def _shrink_llava(config: PreTrainedConfig, processor: Any) -> _Changes:
    side = _small_side(config)
    old, images = _set_side(config, side), processor.image_processor
    changes = {"image_processor": _scaled_sizes(images, side)}
    if pinpoints := getattr(config, "image_grid_pinpoints", None):
        scaled = [[max(1, round(length / old)) * side for length in point] for point in pinpoints]
        config.image_grid_pinpoints = scaled
        changes["image_processor"]["image_grid_pinpoints"] = scaled
    if hasattr(config, "image_seq_length"):
        config.image_seq_length = _PATCHES**2
    if hasattr(processor, "num_image_tokens"):
        changes[""] = {"num_image_tokens": _PATCHES**2}
    return changes


def _shrink_gemma3(config: PreTrainedConfig, processor: Any) -> _Changes:
    side, tokens = _small_side(config), (_PATCHES // 2) ** 2
    _set_side(config, side)
    config.mm_tokens_per_image = tokens
    return {"image_processor": _scaled_sizes(processor.image_processor, side), "": {"image_seq_length": tokens}}


def _shrink_internvl(config: PreTrainedConfig, processor: Any) -> _Changes:
    side, tokens = _small_side(config), int((_PATCHES * config.downsample_ratio) ** 2)
    _set_side(config, side)
    config.image_seq_length = tokens
    return {"image_processor": _scaled_sizes(processor.image_processor, side), "": {"image_seq_length": tokens}}


def _shrink_idefics3(config: PreTrainedConfig, processor: Any) -> _Changes:
    patches = 2 * config.scale_factor
    side = _small_side(config, patches)
    _set_side(config, side)
    images = {"max_image_size": {"longest_edge": side}, "size": {"longest_edge": 2 * side}}
    return {"image_processor": images, "": {"image_seq_len": (patches // config.scale_factor) ** 2}}


_FAMILIES: Mapping[str, Callable[[PreTrainedConfig, Any], _Changes]] = {
    **dict.fromkeys(("llava", "vipllava", "llava_next", "llava_onevision"), _shrink_llava),
    "gemma3": _shrink_gemma3,
    "internvl": _shrink_internvl,
    **dict.fromkeys(("idefics3", "smolvlm"), _shrink_idefics3),
}
