"""Gemma 3's two-way picture masks for packed rows.

Shapes: R rows, L positions of a row, S positions of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from balanced_thinking.packing.attention import ATTENTION_NAME, PackedMask


def has_image_masks(config: Any) -> bool:
    """Whether a packed model needs `bidirectional_image_masks`. Other tokenizers give `token_type_ids`, too."""
    return bool(config.model_type == "gemma3")


def bidirectional_image_masks(
    config: Any, rows: Sequence[Sequence[int]], types_RL: Tensor, dtype: torch.dtype
) -> dict[str, Any] | None:
    """Gemma 3's masks of packed rows by kind of layer, in which the tokens of an image attend to each other both ways.

    Each is a `PackedMask` where attention runs sample by sample, else (R, 1, L, L). transformers 5.23 would look up the
    images of a sliding layer by positions within the sample: later samples of a row would get the images of the first.
    None for FlashAttention, which has no such masks: there transformers reads images one way only, packed or not.
    """
    attention = config._attn_implementation or ""
    if "flash" in attention:
        return None
    windows = {"full_attention": None, "sliding_attention": config.sliding_window}
    spans = list(PackedMask(rows).sample_spans())
    by_sample = {
        kind: [_bidirectional_image_mask(types_RL[row, span] == 1, window) for row, span in spans]
        for kind, window in windows.items()
    }
    if attention == ATTENTION_NAME:
        return {kind: PackedMask(rows, masks=masks) for kind, masks in by_sample.items()}
    dense = {kind: _dense_mask(masks, rows, types_RL) for kind, masks in by_sample.items()}
    if attention != "eager":
        return dense
    lowest = torch.finfo(dtype).min
    return {kind: torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, lowest) for kind, mask in dense.items()}


def _bidirectional_image_mask(image_S: Tensor, window: int | None) -> Tensor:
    """(S, S) of a sample, True where a query (first axis) attends to a key; `image_S` marks image tokens."""
    starts_S = image_S & ~torch.nn.functional.pad(image_S, (1, 0))[:-1]
    block_S = torch.where(image_S, starts_S.cumsum(0), -1)
    together_SS = (block_S[:, None] == block_S) & image_S
    return (torch.ones_like(together_SS).tril() | together_SS).triu(1 - (window or len(image_S)))


def _dense_mask(masks: Sequence[Tensor], rows: Sequence[Sequence[int]], like_RL: Tensor) -> Tensor:
    """(R, 1, L, L): the masks of the samples in their rows; a filler token attends to itself only."""
    width = like_RL.shape[1]
    mask = torch.eye(width, dtype=torch.bool, device=like_RL.device).repeat(len(like_RL), 1, 1)
    for (row, span), mask_SS in zip(PackedMask(rows).sample_spans(), masks, strict=True):
        mask[row, span, span] = mask_SS
    return mask[:, None]
