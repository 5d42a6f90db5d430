"""Gemma 3's two-way picture masks for packed rows.

Shapes: R rows, L positions of a row, S positions of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from balanced_thinking.packing.attention import NAME as BY_SAMPLE
from balanced_thinking.packing.attention import Samples


def bidirectional_image_masks(
    config: Any, rows: Sequence[Sequence[int]], types_RL: Tensor, dtype: torch.dtype
) -> dict[str, Any] | None:
    """Gemma 3's masks of packed rows, by kind of layer, in which a picture's tokens see each other both ways: `Samples`
    where it attends sample by sample, else (R, 1, L, L). transformers 5.23 looks a sliding layer's pictures up at
    positions within the sample, so that in a packed row the later samples get those of the first. None for
    FlashAttention, which has no such masks: transformers lets pictures be read one way there, packed or not.
    """
    attention = config._attn_implementation or ""
    if "flash" in attention:
        return None
    windows = {"full_attention": None, "sliding_attention": config.sliding_window}
    alone = {
        kind: [_bidirectional_image_mask(types_RL[row, span] == 1, window) for row, span in Samples(rows).spans()]
        for kind, window in windows.items()
    }
    if attention == BY_SAMPLE:
        return {kind: Samples(rows, masks=masks) for kind, masks in alone.items()}
    dense = {kind: _dense_mask(masks, rows, types_RL) for kind, masks in alone.items()}
    if attention != "eager":
        return dense
    lowest = torch.finfo(dtype).min
    return {kind: torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, lowest) for kind, mask in dense.items()}


def _bidirectional_image_mask(picture_S: Tensor, window: int | None) -> Tensor:
    """(S, S), True where a query (first axis) of a sample sees a key."""
    begins_S = picture_S & ~torch.nn.functional.pad(picture_S, (1, 0))[:-1]
    block_S = torch.where(picture_S, begins_S.cumsum(0), -1)
    together_SS = (block_S[:, None] == block_S) & picture_S
    return (torch.ones_like(together_SS).tril() | together_SS).triu(1 - (window or len(picture_S)))


def _dense_mask(masks: Sequence[Tensor], rows: Sequence[Sequence[int]], like_RL: Tensor) -> Tensor:
    """(R, 1, L, L): each sample's own mask in its place; a filler sees itself."""
    width = like_RL.shape[1]
    mask = torch.eye(width, dtype=torch.bool, device=like_RL.device).repeat(len(like_RL), 1, 1)
    for (row, span), mask_SS in zip(Samples(rows).spans(), masks, strict=True):
        mask[row, span, span] = mask_SS
    return mask[:, None]
