"""Attention over packed rows sample by sample: what FlashAttention does for rows of several samples, everywhere else.

A dense mask over a row of several samples costs the row's length squared, however short the samples are. Here the
"mask" that a model hands to its layers is `Samples`, which says where they lie, and each one is attended to by itself.
Outside of `packed_rows` it is transformers' own scaled-dot-product attention.

Shapes: R rows, L positions of a row, H heads, D width of a head, S positions of a sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.masking_utils import sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from balanced_thinking.cpu.attention import at_usual_speed, has_own_attention

NAME = "sdpa_by_sample"


@dataclass(frozen=True)
class Samples:
    """Where the samples of each row lie, one after the other, and what each may see: what came before it in the sample,
    no farther back than `window`; or what its own of the `masks` says, (S, S) each."""

    rows: Sequence[Sequence[int]]  # lengths
    window: int | None = None
    masks: Sequence[Tensor] | None = None

    def spans(self) -> Iterator[tuple[int, slice]]:
        for row, lengths in enumerate(self.rows):
            start = 0
            for length in lengths:
                yield row, slice(start, start + length)
                start += length

    def mask(self, index: int, length: int, device: torch.device) -> Tensor | None:
        """(S, S), True where a query (first axis) of a sample sees a key; None where it is causal."""
        if self.masks is not None:
            return self.masks[index]
        if self.window is None or length <= self.window:
            return None
        return torch.ones(length, length, dtype=torch.bool, device=device).tril().triu(1 - self.window)


_ROWS: ContextVar[Sequence[Sequence[int]] | None] = ContextVar("rows", default=None)


@contextmanager
def packed_rows(rows: Sequence[Sequence[int]] | None) -> Iterator[None]:
    """Within it a forward's rows hold samples of these lengths; None: one sample each, as usual."""
    token = _ROWS.set(rows)
    try:
        yield
    finally:
        _ROWS.reset(token)


@contextmanager
def attend_by_sample(model: PreTrainedModel) -> Iterator[bool]:
    """Let the language model attend in this way within it; whether it does: only in place of transformers' own
    scaled-dot-product attention."""
    config = model.config.get_text_config()
    if config._attn_implementation != "sdpa" or not has_own_attention():
        yield config._attn_implementation == NAME
        return
    config._attn_implementation = NAME
    try:
        yield True
    finally:
        config._attn_implementation = "sdpa"


def make_mask(*args: Any, local_size: int | None = None, **kwargs: Any) -> Any:
    """What a layer gets as its mask: `Samples` within `packed_rows`."""
    rows = _ROWS.get()
    return sdpa_mask(*args, local_size=local_size, **kwargs) if rows is None else Samples(rows, window=local_size)


def attend(
    module: torch.nn.Module,
    query_RHLD: Tensor,
    key_RHLD: Tensor,
    value_RHLD: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface; returns (R, L, H, D)."""
    if not isinstance(attention_mask, Samples):
        options = {"scaling": scaling, "dropout": dropout, **kwargs}
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query_RHLD, key_RHLD, value_RHLD, attention_mask, **options)
    groups = query_RHLD.shape[1] // key_RHLD.shape[1]
    key_RHLD, value_RHLD = repeat_kv(key_RHLD, groups), repeat_kv(value_RHLD, groups)
    scaling = query_RHLD.shape[-1] ** -0.5 if scaling is None else scaling
    split = (_split(x_RHLD, attention_mask.rows) for x_RHLD in (query_RHLD, key_RHLD, value_RHLD))
    pieces: list[list[Tensor]] = [[] for _ in attention_mask.rows]
    for index, ((row, _), query, key, value) in enumerate(zip(attention_mask.spans(), *split, strict=True)):
        mask_SS = attention_mask.mask(index, query.shape[2], query.device)
        fused = partial(F.scaled_dot_product_attention, query, key, value, attn_mask=mask_SS, dropout_p=dropout)
        pieces[row].append(at_usual_speed(query.shape[2], partial(fused, is_causal=mask_SS is None, scale=scaling)))
    length = query_RHLD.shape[2]
    rows = [F.pad(torch.cat(row, 2), (0, 0, 0, length - sum(p.shape[2] for p in row))) for row in pieces]
    return torch.cat(rows).transpose(1, 2).contiguous(), None


def _split(x_RHLD: Tensor, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    """(1, H, S, D) of each sample. Not by slices: the backward of each one would fill a tensor of the whole size, so
    that its cost grew with the square of the number of samples; those of `unbind` and `split` put together once."""
    length = x_RHLD.shape[2]
    parts = (x_HLD.split([*row, length - sum(row)], 1)[:-1] for x_HLD, row in zip(x_RHLD.unbind(), rows, strict=True))
    return [x_HSD[None] for row in parts for x_HSD in row]


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, make_mask)
