"""Attention over packed rows, sample by sample, where FlashAttention is not available.

A dense mask over a row costs the row's length squared, however short its samples are. Here the "mask" that a model
passes to its layers is a `PackedMask`, which says where the samples are. Attention then runs on each of them. Outside
of `use_packed_rows` it is transformers' own scaled-dot-product attention.

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

from balanced_thinking.cpu.attention import is_sdpa_original, run_without_onednn

ATTENTION_NAME = "sdpa_by_sample"


@dataclass(frozen=True)
class PackedMask:
    """The samples of each row, and what a token may attend to.

    That is the sample up to it, of which a `window` counts the last tokens, itself included; or what the sample's own
    mask (S, S) allows.
    """

    rows: Sequence[Sequence[int]]  # lengths of the samples
    window: int | None = None
    masks: Sequence[Tensor] | None = None

    def sample_spans(self) -> Iterator[tuple[int, slice]]:
        """Row and positions of each sample."""
        for row, lengths in enumerate(self.rows):
            start = 0
            for length in lengths:
                yield row, slice(start, start + length)
                start += length

    def sample_mask(self, index: int, length: int, device: torch.device) -> Tensor | None:
        """(S, S) of a sample, True where a query (first axis) attends to a key; None where it is plainly causal."""
        if self.masks is not None:
            return self.masks[index]
        if self.window is None or length <= self.window:
            return None
        return torch.ones(length, length, dtype=torch.bool, device=device).tril().triu(1 - self.window)


_ROWS: ContextVar[Sequence[Sequence[int]] | None] = ContextVar("rows", default=None)


@contextmanager
def use_packed_rows(rows: Sequence[Sequence[int]] | None) -> Iterator[None]:
    """Within it the rows of a forward hold samples of these lengths; with None one sample each, as usual."""
    token = _ROWS.set(rows)
    try:
        yield
    finally:
        _ROWS.reset(token)


@contextmanager
def use_per_sample_attention(model: PreTrainedModel) -> Iterator[bool]:
    """Within it the language model attends sample by sample if it used transformers' own "sdpa"; yields whether so."""
    config = model.config.get_text_config()
    if config._attn_implementation != "sdpa" or not is_sdpa_original():
        yield config._attn_implementation == ATTENTION_NAME
        return
    config._attn_implementation = ATTENTION_NAME
    try:
        yield True
    finally:
        config._attn_implementation = "sdpa"


def make_attention_mask(*args: Any, local_size: int | None = None, **kwargs: Any) -> Any:
    """transformers' mask interface: a `PackedMask` within `use_packed_rows`, else the usual mask."""
    rows = _ROWS.get()
    return sdpa_mask(*args, local_size=local_size, **kwargs) if rows is None else PackedMask(rows, window=local_size)


def per_sample_attention(
    module: torch.nn.Module,
    query_RHLD: Tensor,
    key_RHLD: Tensor,
    value_RHLD: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface; the output is (R, L, H, D)."""
    if not isinstance(attention_mask, PackedMask):
        options = {"scaling": scaling, "dropout": dropout, **kwargs}
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query_RHLD, key_RHLD, value_RHLD, attention_mask, **options)
    groups = query_RHLD.shape[1] // key_RHLD.shape[1]
    key_RHLD, value_RHLD = repeat_kv(key_RHLD, groups), repeat_kv(value_RHLD, groups)
    scaling = query_RHLD.shape[-1] ** -0.5 if scaling is None else scaling
    split = (_split_into_samples(x_RHLD, attention_mask.rows) for x_RHLD in (query_RHLD, key_RHLD, value_RHLD))
    pieces: list[list[Tensor]] = [[] for _ in attention_mask.rows]
    for index, ((row, _), query, key, value) in enumerate(zip(attention_mask.sample_spans(), *split, strict=True)):
        mask_SS = attention_mask.sample_mask(index, query.shape[2], query.device)
        fused = partial(F.scaled_dot_product_attention, query, key, value, attn_mask=mask_SS, dropout_p=dropout)
        pieces[row].append(run_without_onednn(query.shape[2], partial(fused, is_causal=mask_SS is None, scale=scaling)))
    length = query_RHLD.shape[2]
    rows = [F.pad(torch.cat(row, 2), (0, 0, 0, length - sum(p.shape[2] for p in row))) for row in pieces]
    return torch.cat(rows).transpose(1, 2).contiguous(), None


def _split_into_samples(x_RHLD: Tensor, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    """(1, H, S, D) of each sample.

    Slices would be slow: the backward of each fills a tensor of the full size, so the cost grows with the square of the
    number of samples. The backward of `unbind` and `split` concatenates once.
    """
    length = x_RHLD.shape[2]
    parts = (x_HLD.split([*row, length - sum(row)], 1)[:-1] for x_HLD, row in zip(x_RHLD.unbind(), rows, strict=True))
    return [x_HSD[None] for row in parts for x_HSD in row]


AttentionInterface.register(ATTENTION_NAME, per_sample_attention)
AttentionMaskInterface.register(ATTENTION_NAME, make_attention_mask)
