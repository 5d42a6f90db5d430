"""What a trainer logs about the two segments: added up on the device, and read once per logging step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from balanced_thinking.loss.schedules import SegmentWeights
from balanced_thinking.loss.weights import SEGMENTS

# Evaluation never follows the schedule, so that its loss can be compared over time.
EVALUATION_WEIGHTS = SegmentWeights(0.5, 0.5)
Reduce = Callable[[torch.Tensor], torch.Tensor]  # sums a tensor over the ranks


class _SegmentSums(NamedTuple):
    """Sums over the samples of a logging period, for one segment."""

    nll: float  # nats, over tokens
    correct: float  # tokens whose target is the top-1 token
    tokens: float
    mean_nll: float  # nats, over examples
    examples: float


_FIELDS = len(_SegmentSums._fields)
_ATTENDED, _DROPPED, _ENTROPIES = (2 * _FIELDS + i for i in range(3))  # indices, behind the sums of both segments


class SegmentTotals:
    """Sums of a logging period, kept on the device until `compute_metrics` transfers them at once.

    They are the `_SegmentSums` of both segments, attended tokens, dropped samples and, where it is asked for, the
    entropy (nats) of each segment. The clock starts with the first micro-batch of the period, so that evaluating and
    saving are not counted.
    """

    def __init__(self) -> None:
        self.sums: torch.Tensor | None = None
        self.weights: SegmentWeights | None = None
        self.started: float | None = None

    def state_dict(self) -> dict[str, Any]:
        """Plain values and a tensor, for a checkpoint."""
        return {
            "sums": None if self.sums is None else self.sums.detach().cpu(),
            "weights": None if self.weights is None else tuple(self.weights),
            "seconds": None if self.started is None else time.perf_counter() - self.started,
        }

    def load_state_dicts(self, states: Sequence[Mapping[str, Any]], parts: int) -> None:
        """Take one of `parts` equal shares of the sums of several ranks."""
        sums = [state["sums"] for state in states if state["sums"] is not None]
        if not sums:
            return
        self.sums = sum(sums[1:], sums[0]) / parts
        weights, seconds = states[0]["weights"], states[0]["seconds"]
        self.weights = None if weights is None else SegmentWeights(*weights)
        self.started = time.perf_counter() - (seconds or 0.0)

    def start_clock(self) -> None:
        self.started = self.started or time.perf_counter()

    def add_batch(
        self,
        segments: torch.Tensor,
        nll: torch.Tensor,
        correct: torch.Tensor,
        attended: torch.Tensor,
        dropped: int,
        entropy: torch.Tensor | None = None,
    ) -> list[torch.Tensor]:
        """Add a micro-batch: tensors of a row per sample, its attended tokens, and how many samples it dropped.

        Returns the mean nll (nats per token) of each segment: a tensor of a number per sample.
        """
        rows, means = [], []
        for segment in SEGMENTS:
            mask = segments == segment
            nll_B, tokens_B = (nll * mask).sum(1), mask.sum(1)
            means_B = nll_B / tokens_B.clamp(min=1)
            means.append(means_B.detach())
            rows += [nll_B.sum(), (correct & mask).sum(), tokens_B.sum(), means_B.sum(), (tokens_B > 0).sum()]
        entropies = [] if entropy is None else [(entropy * (segments == segment)).sum() for segment in SEGMENTS]
        rows += [attended, torch.full_like(attended, dropped), *entropies]
        sums = torch.stack([value.to(torch.float32).to(nll.device) for value in rows])
        self.sums = sums if self.sums is None else self.sums.to(sums.device) + sums
        return means

    def leave_out_since(self, before: torch.Tensor | None) -> None:
        """Set the sums back to `before`, except the tokens and the dropped samples, which were seen in any case."""
        if self.sums is None:
            return
        kept = torch.zeros_like(self.sums) if before is None else before.clone()
        kept[[_ATTENDED, _DROPPED]] = self.sums[[_ATTENDED, _DROPPED]]
        self.sums = kept

    @staticmethod
    def _sum_over_ranks(sums: torch.Tensor, reduce: Reduce) -> list[float]:
        return reduce(sums.double() if sums.device.type != "mps" else sums).tolist()

    def compute_metrics(self, reduce: Reduce, normalize: str) -> dict[str, float]:
        """The metrics of the period; where no weights were set, also the `loss` of an evaluation."""
        if self.sums is None:
            return {}
        sums = self._sum_over_ranks(self.sums, reduce)
        think, answer = _SegmentSums(*sums[:_FIELDS]), _SegmentSums(*sums[_FIELDS:_ATTENDED])
        attended, entropies = sums[_ATTENDED], sums[_ENTROPIES:]
        supervised = max(1.0, think.tokens + answer.tokens)
        metrics = {
            "mean_token_accuracy": (think.correct + answer.correct) / supervised,
            "dropped": sums[_DROPPED],
            "tokens": attended,
        }
        for name, segment in {"think": think, "answer": answer}.items():
            if segment.tokens:
                metrics[f"{name}_nll"] = segment.nll / segment.tokens
                metrics[f"{name}_accuracy"] = segment.correct / segment.tokens
        if entropies:
            metrics["entropy"] = sum(entropies) / supervised  # as TRL defines it
            metrics["think_entropy"], metrics["answer_entropy"] = (
                total / max(1.0, segment.tokens) for total, segment in zip(entropies, (think, answer), strict=True)
            )
        if self.weights is None:
            return metrics | {"loss": self._evaluation_loss(think, answer, normalize)}
        # In plain SFT the weight of a segment is its share of the tokens.
        share = think.tokens / supervised
        w_think, w_answer = (share, 1 - share) if normalize == "token" else self.weights
        seconds = time.perf_counter() - (self.started or 0.0)
        return metrics | {"w_think": w_think, "w_answer": w_answer, "tokens_per_second": attended / seconds}

    @staticmethod
    def _evaluation_loss(think: _SegmentSums, answer: _SegmentSums, normalize: str) -> float:
        if normalize == "token":
            return (think.nll + answer.nll) / max(1.0, think.tokens + answer.tokens)
        pairs = zip(EVALUATION_WEIGHTS, (think, answer), strict=True)
        return sum(weight * segment.mean_nll / max(1.0, segment.examples) for weight, segment in pairs)
