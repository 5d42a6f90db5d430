"""What is said where a training runs out of memory: what it was doing, with which rows, and what would fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from balanced_thinking.config.errors import BalancedThinkingError
from balanced_thinking.system.text import list_some
from balanced_thinking.training.auto_batch import ACCUMULATION, MICRO_BATCH, Division

_NAMED = 3
_CUT = 60


class TrainingMemoryError(BalancedThinkingError, MemoryError):
    """A training that needs more memory than there is."""


@dataclass(frozen=True)
class BatchShape:
    """A micro-batch as the model sees it: rows x tokens with padding, its pictures, and the samples in it."""

    rows: int
    tokens: int
    pictures: int = 0
    ids: Sequence[str] = ()
    lengths: Sequence[int] = ()

    def describe(self) -> str:
        pictures = f" with {self.pictures} picture{'' if self.pictures == 1 else 's'}" if self.pictures else ""
        return f"{self.rows} x {self.tokens:,} tokens{pictures}{self._longest()}"

    def _longest(self) -> str:
        pairs = sorted(zip(self.ids, self.lengths, strict=False), key=lambda pair: -pair[1])
        if not pairs:
            names = [name[:_CUT] for name in dict.fromkeys(self.ids)]
            return f" of {list_some(names, _NAMED)}" if names else ""
        shown = ", ".join(f"{name[:_CUT]} ({length:,})" for name, length in pairs[:_NAMED])
        return f", the longest {shown}" if len(pairs) > 1 else f", {shown}"


@dataclass
class FittedShapes:
    """The largest micro-batches so far, by all their tokens and by the length of a row."""

    most_tokens: BatchShape | None = None
    longest: int = 0
    steps: int = 0

    def add(self, shape: BatchShape) -> None:
        if self.most_tokens is None or shape.rows * shape.tokens > self.most_tokens.rows * self.most_tokens.tokens:
            self.most_tokens = BatchShape(shape.rows, shape.tokens)
        self.longest = max(self.longest, shape.tokens)


@dataclass(frozen=True)
class Shortage:
    """One failure. `lack` is what the system said, `doing` what was being done; `longer_than` counts the data's rows
    that have more tokens than a length, where that is known."""

    lack: str
    doing: str
    shape: BatchShape | None
    division: Division
    fitted: FittedShapes = field(default_factory=FittedShapes)
    longer_than: Callable[[int], str] | None = None
    other_cure: str = ""  # instead of a smaller micro-batch
    length_option: str = "max_length"

    def describe(self) -> str:
        where = f"{self.lack} while {self.doing}"
        if self.shape is not None:
            where += f": {self.shape.describe()}"
        return f"{where}. {self._cure()}"

    def _cure(self) -> str:
        if self.other_cure:
            return self.other_cure
        smaller = self.division.smaller()
        if smaller is not None:
            return (
                f"{self._so_far()}Set {MICRO_BATCH} {smaller.micro_batch} (is {self.division.micro_batch}) and "
                f"{ACCUMULATION} {smaller.accumulation} (is {self.division.accumulation}), which trains the same; "
                "auto_batch: true does it by itself"
            )
        return f"A single sample does not fit. {self._shorter()}"

    def _so_far(self) -> str:
        most = self.fitted.most_tokens
        return f"So far {most.rows} x {most.tokens:,} tokens were the most that fitted. " if most else ""

    def _shorter(self) -> str:
        pictures = ", fewer image_options.max_pixels" if self.shape is not None and self.shape.pictures else ""
        others = f"train an adapter (lora.r){pictures}"
        fits = self.fitted.longest
        if self.shape is None or not fits or fits >= self.shape.tokens or self.length_option != "max_length":
            return f"Set a smaller {self.length_option}; or {others}"
        count = f" ({self.longer_than(fits)})" if self.longer_than is not None else ""
        return (
            f"{fits:,} tokens did fit: set max_length {fits} with overflow trim_think to shorten longer rows{count}, "
            f"or overflow drop to leave them out; or {others}"
        )
