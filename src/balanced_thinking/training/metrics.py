"""What a trainer logs about the two segments: added up on the device, and read once per logging step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from balanced_thinking.loss.weightings import StepWeights
from balanced_thinking.loss.weights import SEGMENTS

Reduce = Callable[[torch.Tensor], torch.Tensor]  # sums a tensor over the ranks


class _SegmentSums(NamedTuple):
    """Sums over the samples of a logging period, for one segment: numbers, or tensors of one element."""

    nll: Any  # nats, over tokens
    correct: Any  # tokens whose target is the top-1 token
    tokens: Any
    mean_nll: Any  # nats, over examples
    examples: Any


class _CommonSums(NamedTuple):
    """Sums over the samples of a logging period that are not of one segment: numbers, or tensors of one element."""

    attended: Any  # tokens
    dropped: Any  # samples
    think_mass: Any  # weights of the loss, over think tokens
    answer_mass: Any
    mean_nll: Any  # nats, over examples: of all their supervised tokens
    examples: Any


_FIELDS, _COMMON = len(_SegmentSums._fields), len(_CommonSums._fields)
_ATTENDED, _DROPPED = 2 * _FIELDS, 2 * _FIELDS + 1  # indices, behind the sums of both segments
_ENTROPIES = 2 * _FIELDS + _COMMON
_ENTROPIES_ONCE = 2 * _FIELDS + 2  # where entropies began in the checkpoints of earlier versions


class SegmentTotals:
    """Sums of a logging period, kept on the device until `compute_metrics` transfers them at once.

    They are the `_SegmentSums` of both segments, `_CommonSums` and, where it is asked for, the entropy (nats) of each
    segment. The clock starts with the first micro-batch of the period, so that evaluating and saving are not counted.
    """

    def __init__(self) -> None:
        self.sums: torch.Tensor | None = None
        self.weights: StepWeights | None = None  # of the last step
        self.training = True
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
        sums = [_fill_older_sums(state["sums"]) for state in states if state["sums"] is not None]
        if not sums:
            return
        self.sums = sum(sums[1:], sums[0]) / parts
        weights, seconds = states[0]["weights"], states[0]["seconds"]
        self.weights = None if weights is None else StepWeights(*weights)
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
        weights: torch.Tensor,
        entropy: torch.Tensor | None = None,
    ) -> list[torch.Tensor]:
        """Add a micro-batch: tensors of a row per sample, its attended tokens, and how many samples it dropped.

        `weights` are those of the loss. Returns one tensor per segment, with the mean nll (nats per token) of each
        sample.
        """
        rows: list[torch.Tensor] = []
        means = []
        for segment in SEGMENTS:
            mask = segments == segment
            nll_B, tokens_B = (nll * mask).sum(1), mask.sum(1)
            means_B = nll_B / tokens_B.clamp(min=1)
            means.append(means_B.detach())
            rows += _SegmentSums(
                nll=nll_B.sum(),
                correct=(correct & mask).sum(),
                tokens=tokens_B.sum(),
                mean_nll=means_B.sum(),
                examples=(tokens_B > 0).sum(),
            )
        entropies = [] if entropy is None else [(entropy * (segments == segment)).sum() for segment in SEGMENTS]
        supervised = (segments == SEGMENTS[0]) | (segments == SEGMENTS[1])
        tokens_B = supervised.sum(1)
        think_mass, answer_mass = ((weights * (segments == segment)).sum() for segment in SEGMENTS)
        rows += _CommonSums(
            attended=attended,
            dropped=torch.full_like(attended, dropped),
            think_mass=think_mass,
            answer_mass=answer_mass,
            mean_nll=((nll * supervised).sum(1) / tokens_B.clamp(min=1)).sum(),
            examples=(tokens_B > 0).sum(),
        )
        rows += entropies
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

    def compute_metrics(self, reduce: Reduce) -> dict[str, float]:
        """The metrics of the period; of an evaluation also its `loss`."""
        if self.sums is None:
            return {}
        sums = self._sum_over_ranks(self.sums, reduce)
        think, answer = _SegmentSums(*sums[:_FIELDS]), _SegmentSums(*sums[_FIELDS:_ATTENDED])
        common, entropies = _CommonSums(*sums[_ATTENDED:_ENTROPIES]), sums[_ENTROPIES:]
        supervised = max(1.0, think.tokens + answer.tokens)
        metrics = {
            "mean_token_accuracy": (think.correct + answer.correct) / supervised,
            "dropped": common.dropped,
            "tokens": common.attended,
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
            return metrics
        if not self.training:
            return metrics | {"loss": _evaluation_loss(self.weights, think, answer, common)}
        w_think, w_answer = _segment_shares(self.weights, common)
        seconds = time.perf_counter() - (self.started or 0.0)
        return metrics | {"w_think": w_think, "w_answer": w_answer, "tokens_per_second": common.attended / seconds}


def _segment_shares(weights: StepWeights, common: _CommonSums) -> tuple[float, float]:
    """The segments' weights in the loss: of plain SFT the shares that they have by their lengths and factors."""
    if not weights.is_plain:
        return weights.think, weights.answer
    share = common.think_mass / ((common.think_mass + common.answer_mass) or 1.0)
    return share, 1 - share


def _evaluation_loss(weights: StepWeights, think: _SegmentSums, answer: _SegmentSums, common: _CommonSums) -> float:
    if weights.means == "token":
        return (think.nll + answer.nll) / max(1.0, think.tokens + answer.tokens)
    if weights.means == "example-mean":
        return common.mean_nll / max(1.0, common.examples)
    pairs = ((weights.think, think), (weights.answer, answer))
    return sum(weight * segment.mean_nll / max(1.0, segment.examples) for weight, segment in pairs)


def _fill_older_sums(sums: torch.Tensor) -> torch.Tensor:
    """The sums of a checkpoint; zeros for those that an earlier version did not have."""
    if len(sums) >= _ENTROPIES:
        return sums
    return torch.cat(
        [
            sums[:_ENTROPIES_ONCE],
            sums.new_zeros(_ENTROPIES - _ENTROPIES_ONCE),
            sums[_ENTROPIES_ONCE:],
        ]
    )


def refuse_all_dropped(logs: Sequence[Mapping[str, Any]], max_length: int | None) -> None:
    """Raises ValueError if a training's log says that every sample was left out."""
    if any(row.get("dropped") for row in logs) and not any("answer_nll" in row for row in logs):
        raise ValueError(
            f"no sample was used for training: each is longer than max_length={max_length}, or a bad row that is "
            "dropped. Raise max_length or set overflow=trim_think; `balanced inspect` with --model lists bad rows"
        )
