"""torch's fused attention on the meta device, where torch itself would trace an attention that keeps all scores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from balanced_thinking.loss.chunks import autocast_dtype

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


@contextmanager
def fused_attention() -> Iterator[None]:
    """Within it `F.scaled_dot_product_attention` keeps queries, keys, values, output and one number per query.

    That is what flash and memory-efficient kernels keep for the backward, on CPUs and GPUs.
    """
    original = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = _attend
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """As torch's, which also makes a number of each boolean of a mask, and keeps them."""
    if enable_gqa and key.shape[-3] != query.shape[-3]:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    lower = autocast_dtype(torch.device("meta"))
    if lower is not None:
        query, key, value = query.to(lower), key.to(lower), value.to(lower)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        blank = torch.empty((), dtype=query.dtype, device=query.device)
        attn_mask = torch.where(attn_mask, blank, blank)
    shape = query.shape
    if query.dim() == 3:
        query, key, value = query[None], key[None], value[None]
    output: Any = _flash(query, key, value, 0.0, is_causal, attn_mask=attn_mask, scale=scale)[0]
    return output.view(*shape[:-1], value.shape[-1])
