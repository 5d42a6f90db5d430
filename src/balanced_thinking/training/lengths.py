"""Batches of samples of similar length, for models whose samples cannot share a row.

transformers' own grouping reads a column of token ids, which vision data never has, and draws its order from the global
generator, so that a resumed run would see another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler

_TEXT_COLUMNS = ("messages", "prompt", "completion")


def rough_lengths(dataset: Any) -> list[int]:
    """Characters of each row's texts: enough to put like with like, with no tokenizer and no picture opened."""
    if hasattr(dataset, "select_columns"):
        dataset = dataset.select_columns([name for name in _TEXT_COLUMNS if name in dataset.column_names])
    return [sum(_characters(row.get(name)) for name in _TEXT_COLUMNS) for row in dataset]


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(_characters(part) for key, part in value.items() if key in ("content", "text"))
    return sum(map(_characters, value)) if isinstance(value, Sequence) else 0


class LengthSampler(LengthGroupedSampler):
    """transformers' sampler with an order that the seed and the epoch alone decide, so that resuming is exact."""

    def __init__(self, batch_size: int, lengths: list[int], seed: int) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + self.epoch)
        return super().__iter__()
