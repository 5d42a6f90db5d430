"""What a study needs of a place that processes its runs. `run.py` decides which run is next, and nothing else does."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from balanced_thinking.study.plan import PlannedRun, Study


class Worker(Protocol):
    """A run that was started, with the methods of `subprocess.Popen` that a study uses. It never blocks."""

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""

    def send_signal(self, number: int, /) -> None:
        """Ask it to save and stop (SIGTERM); a second time: to end at once."""

    def kill(self) -> None: ...


class Executor(Protocol):
    """Starts runs. It is a context: within it, it has what it needs, such as a connection."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def count_slots(self) -> int:
        """How many runs it processes at the same time where the user gives no number."""

    def check(self, study: Study, root: Path) -> None:
        """Raises RecipeError with every fault of the parts that are not done yet, as their runs would meet them."""

    def start(self, root: Path, run: PlannedRun, jobs: int, others: Collection[Worker]) -> Worker:
        """Start a run, whose folder exists. `jobs` is how many run at most, `others` are those that run now."""
