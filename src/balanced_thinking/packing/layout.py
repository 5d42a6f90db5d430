"""Samples of different lengths share rows without padding. Each has its own positions; none attends to another.

Attention runs sample by sample (`attention`), or transformers separates the samples of a row by their positions, which
start again with each sample. All of its attention implementations do that. Qwen's three-axis rotary positions come from
the model itself, sample by sample.

Shapes: E samples, R rows, L positions of a row, P predicted tokens of the longest sample (all but its first).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Bins of indices: longest first, each into the fullest bin that has room. One longer than `capacity` is alone."""
    bins: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fitting = [b for b, free in enumerate(room) if free >= lengths[index]]
        if fitting:
            best = min(fitting, key=room.__getitem__)
            bins[best].append(index)
            room[best] -= lengths[index]
        else:
            bins.append([index])
            room.append(capacity - lengths[index])
    return bins


@dataclass(frozen=True)
class PackingLayout:
    """Which samples are in which row, in their order.

    `rows` holds the indices of the samples, `lengths` the length of each sample by its index.
    """

    rows: list[list[int]]
    lengths: list[int]

    @property
    def sample_order(self) -> list[int]:
        """The indices of the samples, row by row."""
        return [index for row in self.rows for index in row]

    @property
    def lengths_by_row(self) -> list[list[int]]:
        """The lengths of the samples, row by row."""
        return [[self.lengths[index] for index in row] for row in self.rows]

    @property
    def row_width(self) -> int:
        """Tokens of the longest row."""
        return max(map(sum, self.lengths_by_row))

    def flash_arguments(self, width: int) -> dict[str, Any]:
        """Arguments of FlashAttention, under transformers' names: the edges of the samples in the flattened rows.

        The filler at the end of a row counts as one more sample. Without these arguments transformers infers them from
        the positions, and waits for the device in every layer.
        """
        rows = ([*lengths, width - sum(lengths)] for lengths in self.lengths_by_row)
        lengths = [length for row in rows for length in row if length]
        edges = torch.tensor(list(accumulate(lengths, initial=0)), dtype=torch.int32)
        longest = max(lengths)
        return {"cu_seq_lens_q": edges, "cu_seq_lens_k": edges, "max_length_q": longest, "max_length_k": longest}

    def join_samples(self, samples: Sequence[Sequence[int]]) -> list[list[int]]:
        """One list of values per sample -> one list per row."""
        return [[value for index in row for value in samples[index]] for row in self.rows]

    def position_ids(self, of_samples: Tensor | None = None) -> Tensor:
        """(R, L) positions that start again with each sample.

        `of_samples` (axes, E, longest) are a model's own positions. With them the result is (1 + axes, R, L): the plain
        positions first, as transformers expects them.
        """
        plain = [torch.arange(length) for length in self.lengths]
        if of_samples is None:
            return self._fill_rows([plain])[0]
        own = [[axis[index, :length] for index, length in enumerate(self.lengths)] for axis in of_samples]
        return self._fill_rows([plain, *own])

    def _fill_rows(self, axes: Sequence[Sequence[Tensor]]) -> Tensor:
        # Position 0 throughout separates the filler from the sample before it: each filler token is its own sample.
        filled = torch.zeros(len(axes), len(self.rows), self.row_width, dtype=torch.long)
        for a, samples in enumerate(axes):
            for r, row in enumerate(self.rows):
                joined = torch.cat([samples[index] for index in row])
                filled[a, r, : len(joined)] = joined
        return filled

    def token_indices(self, width: int) -> Tensor:
        """(E, P): index of each sample's predicted tokens in a flattened (R, width - 1), -1 beyond the sample's end."""
        places = torch.full((len(self.lengths), max(self.lengths) - 1), -1)
        for r, (row, lengths) in enumerate(zip(self.rows, self.lengths_by_row, strict=True)):
            for index, start in zip(row, accumulate(lengths, initial=0), strict=False):
                count = self.lengths[index] - 1
                places[index, :count] = torch.arange(count) + start + r * (width - 1)
        return places


def unpack_to_samples(values_RL: Tensor, indices_EP: Tensor) -> Tensor:
    """Values of the predicted positions, (R, L - 1) -> a row per sample, (E, P), zero beyond the sample's end."""
    return values_RL.flatten()[indices_EP.clamp(min=0)].masked_fill(indices_EP < 0, 0)


def pack_into_rows(values_EP: Tensor, indices_EP: Tensor, like_RL: Tensor) -> Tensor:
    """The inverse of `unpack_to_samples`: (R, L - 1) like `like_RL`, zero where there is no sample."""
    spare = like_RL.numel()  # one index past the end receives what is not a token
    flat = values_EP.new_zeros(spare + 1)
    flat.scatter_(0, indices_EP.masked_fill(indices_EP < 0, spare).flatten(), values_EP.flatten())
    return flat[:spare].view_as(like_RL)
