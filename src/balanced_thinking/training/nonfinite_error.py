"""What is said of a step that was not finite: where it began, with which rows, and what to try."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from balanced_thinking.config.errors import BalancedThinkingError
from balanced_thinking.system.text import list_some

_NAMED_ROWS = 8
_NAMED_MODULES = 5
_NAMED_TENSORS = 4
_CUT = 60  # characters of a row's name


class NonFiniteError(BalancedThinkingError, FloatingPointError):
    """A loss, a gradient, a weight or a reward that is NaN or infinite."""


@dataclass(frozen=True)
class MicroBatch:
    """What is known of a micro-batch of one rank: its loss, its rows, and the segments' losses of each row.

    `segments` are (think, answer) in nats per token; empty where nobody knows them. A row without the segment has 0.
    """

    number: int
    of: int
    loss: float
    rows: tuple[str, ...] = ()
    segments: tuple[tuple[float, float], ...] = ()

    def is_finite(self) -> bool:
        return math.isfinite(self.loss)


@dataclass(frozen=True)
class BadStep:
    """A step that was not finite. `weights` are the tensors that are not finite now; None where nobody looked."""

    step: int
    norm: float | None
    batches: Sequence[MicroBatch]
    modules: Mapping[str, float] = field(default_factory=dict)
    weights: Sequence[str] | None = None
    updated: bool = False  # whether the weights were updated with this step before it was known

    @property
    def losses_are_finite(self) -> bool:
        return all(batch.is_finite() for batch in self.batches)

    def headline(self) -> str:
        bad = [batch.loss for batch in self.batches if not batch.is_finite()]
        before = "; the weights were finite" if self.weights == [] else ""
        if not self.updated and self.weights:
            named = list_some(self.weights, _NAMED_TENSORS)
            return f"weights are not finite before optimizer step {self.step}: {named}. An earlier update made them so"
        if bad:
            return f"the loss is {bad[0]} at optimizer step {self.step}{before}"
        return f"the gradient norm is {self.norm} at optimizer step {self.step}, while the loss is finite{before}"

    def facts(self) -> list[str]:
        """One line for each: the rows, and the gradient by module."""
        found = [_describe_batch(batch) for batch in self.batches if self.losses_are_finite or not batch.is_finite()]
        if self.modules:
            found.append(f"gradient norm by module: {_describe_modules(self.modules)}")
        return found


def describe_stop(bad: BadStep, checkpoint: Path | None, *, may_skip: bool) -> str:
    """The error's message: what was found, what the state of the run is, and what to try."""
    if bad.updated:
        state = "Its update was made before the GPU reported it, so these weights are of no use and are not saved"
    else:
        state = "Training stopped before this update"
    kept = f"; {checkpoint} is usable" if checkpoint else "; there is no checkpoint yet"
    return "\n".join([f"{bad.headline()}. {state}{kept}.", *(f"  {fact}" for fact in bad.facts()), _advice(may_skip)])


def _advice(may_skip: bool) -> str:
    tries = ["a lower learning_rate", "a lower max_grad_norm", "bf16 instead of fp16", "leaving these rows out"]
    tries += ["on_nonfinite: skip"] if may_skip else []
    return f"  try: {', '.join(tries)}"


def _describe_batch(batch: MicroBatch) -> str:
    texts = [
        f"{row[:_CUT]} (think {think:.4g}, answer {answer:.4g})" if pair is not None else row[:_CUT]
        for row, pair in _with_segments(batch)
        for think, answer in [pair or (0.0, 0.0)]
    ]
    unit = " (nats per token)" if batch.segments else ""
    where = f"micro-batch {batch.number} of {batch.of}, loss {batch.loss:.4g}"
    return f"{where}: {len(texts)} row{'' if len(texts) == 1 else 's'}{unit}: {list_some(texts, _NAMED_ROWS)}"


def _with_segments(batch: MicroBatch) -> list[tuple[str, tuple[float, float] | None]]:
    """Rows with their losses, those that are not finite first, then the largest."""
    if len(batch.segments) != len(batch.rows):
        return [(row, None) for row in batch.rows]
    pairs: list[tuple[str, tuple[float, float] | None]] = list(zip(batch.rows, batch.segments, strict=True))
    return sorted(pairs, key=lambda pair: -_size(max(map(_size, pair[1] or ()))))


def _size(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _describe_modules(modules: Mapping[str, float]) -> str:
    """The non-finite ones first, then the largest."""
    order = sorted(modules, key=lambda name: -_size(modules[name]))
    return list_some([f"{name} {modules[name]:.3g}" for name in order], _NAMED_MODULES)
