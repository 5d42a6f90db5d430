"""Pictures of an assumed size as each family's processor would hand them on, where there is no data to look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from balanced_thinking.estimate.devices import EstimateError

_LLAVA_GRID = 2  # tiles a side of a square picture, beside the one that shows all of it
_INTERNVL_TILES = 10  # 3 x 3 and the one that shows all of it
_SMOLVLM_EDGE = 1536  # pixels that its processor brings the longest edge to


class AssumedPicture(NamedTuple):
    """One picture: its tokens in the text, and the tensors of the model's input, which are joined along axis 0."""

    tokens: int
    tensors: dict[str, Tensor]


def assume_picture(config: Any, side: int, options: Mapping[str, Any]) -> AssumedPicture:
    """A square picture of `side` pixels. Raises EstimateError for a family that is not known here."""
    make = _FAMILIES.get(config.model_type)
    if make is None:
        raise EstimateError(
            f"what a picture becomes for {config.model_type} is not known here (known: {', '.join(_FAMILIES)}); give "
            "the recipe's data and processor, which show it, or --picture 0 for texts alone"
        )
    return make(config, side, options)


def image_token(config: Any) -> int:
    for name in ("image_token_id", "image_token_index"):
        if (found := getattr(config, name, None)) is not None:
            return int(found)
    return 0


def _qwen(config: Any, side: int, options: Mapping[str, Any]) -> AssumedPicture:
    vision = config.vision_config
    cell = vision.patch_size * vision.spatial_merge_size
    pixels = min(side * side, int(options.get("max_pixels") or side * side))
    cells = max(1, int(pixels**0.5) // cell)
    rows = cells * vision.spatial_merge_size
    width = 3 * vision.temporal_patch_size * vision.patch_size**2
    grid = torch.tensor([[1, rows, rows]])
    return AssumedPicture(cells * cells, {"pixel_values": _blank(rows * rows, width), "image_grid_thw": grid})


def _gemma3(config: Any, side: int, options: Mapping[str, Any]) -> AssumedPicture:
    edge = config.vision_config.image_size
    return AssumedPicture(config.mm_tokens_per_image, {"pixel_values": _blank(1, 3, edge, edge)})


def _llava_next(config: Any, side: int, options: Mapping[str, Any]) -> AssumedPicture:
    edge = config.vision_config.image_size
    patches = edge // config.vision_config.patch_size
    tiles = _LLAVA_GRID * patches
    tokens = patches**2 + tiles * (tiles + 1)  # a line of tiles ends with a token of its own
    pixels = _blank(1, _LLAVA_GRID**2 + 1, 3, edge, edge)
    sizes = torch.tensor([[_LLAVA_GRID * edge, _LLAVA_GRID * edge]])
    return AssumedPicture(tokens, {"pixel_values": pixels, "image_sizes": sizes})


def _internvl(config: Any, side: int, options: Mapping[str, Any]) -> AssumedPicture:
    edge = config.vision_config.image_size
    edge = edge[0] if isinstance(edge, (list, tuple)) else edge
    tiles = min(_INTERNVL_TILES, int(options.get("max_patches") or _INTERNVL_TILES) + 1)
    tiles = 1 if options.get("crop_to_patches") is False else tiles
    return AssumedPicture(tiles * config.image_seq_length, {"pixel_values": _blank(tiles, 3, edge, edge)})


def _smolvlm(config: Any, side: int, options: Mapping[str, Any]) -> AssumedPicture:
    vision = config.vision_config
    edge = int((options.get("size") or {}).get("longest_edge") or _SMOLVLM_EDGE)
    tiles = -(-edge // vision.image_size)
    tiles = tiles**2 + 1 if tiles > 1 else 1  # beside the parts the one that shows all of it
    tokens = (vision.image_size // vision.patch_size // config.scale_factor) ** 2
    return AssumedPicture(tiles * tokens, {"pixel_values": _blank(1, tiles, 3, vision.image_size, vision.image_size)})


def _blank(*shape: int) -> Tensor:
    """Without numbers, but real: only shapes are read."""
    return torch.empty(1).expand(*shape)


_FAMILIES = {
    "qwen2_vl": _qwen,
    "qwen2_5_vl": _qwen,
    "qwen3_vl": _qwen,
    "gemma3": _gemma3,
    "llava_next": _llava_next,
    "internvl": _internvl,
    "smolvlm": _smolvlm,
}
