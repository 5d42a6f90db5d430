"""The windows and pictures of a vision tower traced at once, where transformers attends to one after the other.

Qwen2.5-VL's tower has a hundred windows a picture in each of 28 layers. Windows of one length differ in no shape, so
one call stands for all of them, and is counted as often as it would be made.

Shapes: H heads, L positions of all windows, W windows of one length, S positions of a window, D width of a head.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

# transformers passes all windows at once to an attention that has this word in its name.
_NAME = "flash_of_equal_windows"
_FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")

Shapes = set[tuple[int, ...]]


@contextmanager
def equal_windows_at_once(model: Any, shapes: Shapes) -> Iterator[None]:
    """Within it a tower that computes windows one by one computes equal ones in one call.

    The shapes (W, H, S, D) of the queries of such calls are added to `shapes`.
    """
    config = getattr(model.config, "vision_config", None)
    if model.config.model_type not in _FAMILIES or config is None:
        yield
        return
    AttentionInterface.register(_NAME, partial(_attend, shapes))
    before, config._attn_implementation = config._attn_implementation, _NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _attend(
    shapes: Shapes,
    module: torch.nn.Module,
    query_1HLD: Tensor,
    key_1HLD: Tensor,
    value_1HLD: Tensor,
    attention_mask: Any,
    *,
    cu_seq_lens_q: Tensor,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface; the output is (1, L, H, D)."""
    counts = Counter((cu_seq_lens_q[1:] - cu_seq_lens_q[:-1]).tolist())
    sizes = [length * count for length, count in counts.items()]
    split = [x_1HLD.split(sizes, 2) for x_1HLD in (query_1HLD, key_1HLD, value_1HLD)]
    pieces = []
    for length, *parts in zip(counts, *split, strict=True):
        query_WHSD, key_WHSD, value_WHSD = (_to_windows(part, length) for part in parts)
        shapes.add(tuple(query_WHSD.shape))
        output = F.scaled_dot_product_attention(query_WHSD, key_WHSD, value_WHSD, scale=scaling)
        pieces.append(output.transpose(1, 2).flatten(0, 1)[None])
    return torch.cat(pieces, 1), None


def _to_windows(part_1HLD: Tensor, length: int) -> Tensor:
    return part_1HLD[0].unflatten(1, (-1, length)).transpose(0, 1)
