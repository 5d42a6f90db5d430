"""Tokens that are drawn at random, so that an item's answer is the same in every batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from balanced_thinking.evaluation.sampling import Sampling


class TokenDraws:
    """Draws the tokens of a batch's rows. Each row has random numbers of its own, which go on when others have left.

    Args:
        sampling: not greedy. items: the id of each row's item.
    """

    def __init__(self, sampling: Sampling, items: Sequence[str]) -> None:
        self._sampling = sampling
        self._seeds = [sampling.seed_of(item) for item in items]
        self._generators: dict[int, torch.Generator] = {}

    def processors(self, rows: Sequence[int]) -> LogitsProcessorList:
        """With these, the most probable token of a batch of these rows is a draw."""
        sampling = self._sampling
        found = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
        if sampling.top_k:
            found.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            found.append(TopPLogitsWarper(sampling.top_p))
        return LogitsProcessorList([*found, _GumbelNoise(self, rows)])

    def exponential(self, row: int, like_V: torch.Tensor) -> torch.Tensor:
        """(V) numbers of an exponential distribution: the row's next ones.

        Some devices draw 0 once in 2**24 numbers, and its noise would be so large that a token of any probability is
        taken. So 2**-24 is the smallest number: an exact draw is below it as seldom.
        """
        if row not in self._generators:
            self._generators[row] = torch.Generator(like_V.device).manual_seed(self._seeds[row])
        drawn_V = torch.empty_like(like_V, dtype=torch.float32).exponential_(generator=self._generators[row])
        return drawn_V.clamp_min_(torch.finfo(torch.float32).eps / 2)


class _GumbelNoise(LogitsProcessor):
    """Adds Gumbel noise, -log of exponential numbers, to the logits: the largest sum is a draw from their softmax."""

    def __init__(self, draws: TokenDraws, rows: Sequence[int]) -> None:
        self._draws, self._rows = draws, rows

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        drawn_BV = torch.stack([self._draws.exponential(row, scores[0]) for row in self._rows])
        return scores.float() - drawn_BV.log()
