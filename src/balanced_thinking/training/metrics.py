"""What a trainer logs about the two segments, added up on the device and read once a logging step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from balanced_thinking.loss.weights import SEGMENTS

# Evaluation never follows the schedule, so that its loss can be compared over time.
EVALUATION_WEIGHTS = (0.5, 0.5)


class SegmentTotals:
    """Sums of a logging period, kept on the device until `compute_metrics` brings them over in one transfer.

    Per segment: nll (nats), correct tokens, tokens, examples' mean nlls, examples; then attended tokens, dropped
    samples and, where it is asked for, each segment's entropy (nats). The clock starts with the period's first
    micro-batch, so that evaluating and saving are not counted.
    """

    def __init__(self) -> None:
        self.sums: torch.Tensor | None = None
        self.weights: tuple[float, float] | None = None
        self.started: float | None = None
        self._told = 0  # attended tokens that were counted before the period's end

    def start_clock(self) -> None:
        self.started = self.started or time.perf_counter()

    def add_batch(
        self,
        segments: torch.Tensor,
        nll: torch.Tensor,
        correct: torch.Tensor,
        rest: Sequence[torch.Tensor],
        entropy: torch.Tensor | None = None,
    ) -> None:
        rows = []
        for segment in SEGMENTS:
            mask = segments == segment
            nll_B, tokens_B = (nll * mask).sum(1), mask.sum(1)
            means_B = nll_B / tokens_B.clamp(min=1)
            rows += [nll_B.sum(), (correct & mask).sum(), tokens_B.sum(), means_B.sum(), (tokens_B > 0).sum()]
        entropies = [] if entropy is None else [(entropy * (segments == segment)).sum() for segment in SEGMENTS]
        sums = torch.stack([value.to(torch.float32).to(nll.device) for value in (*rows, *rest, *entropies)])
        self.sums = sums if self.sums is None else self.sums + sums

    def count_new_tokens(self, reduce: Any) -> int:
        """Attended tokens, over all ranks, since it was asked last."""
        if self.sums is None:
            return 0
        told, self._told = self._told, int(self._sum_over_ranks(self.sums, reduce)[10])
        return self._told - told

    @staticmethod
    def _sum_over_ranks(sums: torch.Tensor, reduce: Any) -> list[float]:
        return reduce(sums.double() if sums.device.type != "mps" else sums).tolist()

    def compute_metrics(self, reduce: Any, normalize: str) -> dict[str, float]:
        """The period's metrics; with them, where no weights were set, the `loss` of an evaluation. `reduce` sums a
        tensor over the ranks."""
        if self.sums is None:
            return {}
        sums = self._sum_over_ranks(self.sums, reduce)
        think, answer, (attended, dropped), entropies = sums[0:5], sums[5:10], sums[10:12], sums[12:]
        supervised = max(1.0, think[2] + answer[2])
        shown = {
            "mean_token_accuracy": (think[1] + answer[1]) / supervised,
            "dropped": dropped,
            "tokens": attended - self._told,
        }
        for name, (nll, correct, n, *_) in {"think": think, "answer": answer}.items():
            if n:
                shown |= {f"{name}_nll": nll / n, f"{name}_accuracy": correct / n}
        if entropies:
            shown["entropy"] = sum(entropies) / supervised  # as TRL counts it
            shown["think_entropy"], shown["answer_entropy"] = (
                total / max(1.0, n) for total, n in zip(entropies, (think[2], answer[2]), strict=True)
            )
        if self.weights is None:
            return shown | {"loss": self._evaluation_loss(think, answer, normalize)}
        # Plain SFT gives each segment what its length is worth.
        share = think[2] / supervised
        w_think, w_answer = (share, 1 - share) if normalize == "token" else self.weights
        seconds = time.perf_counter() - (self.started or 0.0)
        return shown | {"w_think": w_think, "w_answer": w_answer, "tokens_per_second": attended / seconds}

    @staticmethod
    def _evaluation_loss(think: list[float], answer: list[float], normalize: str) -> float:
        if normalize == "token":
            return (think[0] + answer[0]) / max(1.0, think[2] + answer[2])
        pairs = zip(EVALUATION_WEIGHTS, (think, answer), strict=True)
        return sum(weight * means / max(1.0, n) for weight, (*_, means, n) in pairs)
