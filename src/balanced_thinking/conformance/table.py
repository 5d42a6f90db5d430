"""The table that a check fills: one row for each property, and what a failure means for a user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from balanced_thinking.config.errors import BalancedThinkingError

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
_WIDTH = 110  # characters of a line of the table


class NotConformingError(BalancedThinkingError, ValueError):
    """A model for which at least one property does not hold."""


class PropertyError(Exception):
    """A property does not hold. The message says what was found and what was expected."""


class SkippedError(Exception):
    """A property cannot be checked here. The message says why."""


@dataclass(frozen=True)
class CheckedProperty:
    """A row of the table.

    Attributes:
        name: of the property.
        status: passed, failed or skipped.
        figure: what was measured, or why the row failed or was skipped.
        means: what a failure means for the user.
        seconds: how long the check took.
    """

    name: str
    status: str
    figure: str
    means: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Conformance:
    """The result of a check.

    Attributes:
        model: as the user named it.
        architecture: the class of the model.
        real_weights: whether its own weights were checked, or else a shrunken copy with random ones.
        rows: the table.
    """

    model: str
    architecture: str
    real_weights: bool
    rows: tuple[CheckedProperty, ...]

    @property
    def failed(self) -> list[CheckedProperty]:
        return [row for row in self.rows if row.status == FAILED]

    def table(self) -> str:
        """The rows as text, and what each failure means."""
        lines = [f"{self.model}: {self.architecture}, {self._subject_words()}", ""]
        width = max(len(row.name) for row in self.rows)
        for row in self.rows:
            lines += wrap_line(f"{row.status:<7}  {row.name:<{width}}  ", row.figure)
        for row in self.failed:
            lines += ["", f"{row.name}: {row.means}"]
        return "\n".join(lines)

    def conclusion(self) -> str:
        """One line: what the table means, and what to do next."""
        if self.failed:
            names = ", ".join(row.name for row in self.failed)
            doubt = "" if self.real_weights else "; --real-weights shows whether its own weights fail, too"
            count = f"{len(self.failed)} of {len(self.rows)} properties failed"
            return f"{count} ({names}): do not train {self.model} yet{doubt}"
        skipped = [row.name for row in self.rows if row.status == SKIPPED]
        left = f" ({', '.join(skipped)} skipped)" if skipped else ""
        weights = "" if self.real_weights else "; --real-weights also checks its own weights"
        return f"{self.model} can be trained: balanced sft --model {self.model}{left}{weights}"

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        return {"failed": len(self.failed), "conclusion": self.conclusion(), **asdict(self)}

    def _subject_words(self) -> str:
        return "its own weights" if self.real_weights else "a shrunken copy with random weights"


def wrap_line(head: str, figure: str) -> Sequence[str]:
    """`head` and the words of `figure`, in lines of at most `_WIDTH` characters where words allow it."""
    lines, line = [], head
    for word in figure.split():
        if len(line) > len(head) and len(line) + len(word) > _WIDTH:
            lines.append(line.rstrip())
            line = " " * len(head)
        line += f"{word} "
    return [*lines, line.rstrip()]
