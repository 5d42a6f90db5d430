"""Progress: a bar if standard error is a terminal, else occasional lines in the log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from balanced_thinking.system.logs import LOGGER
from balanced_thinking.system.process import process_rank

T = TypeVar("T")
logger = logging.getLogger(__name__)
# Time between two lines: at least the first, at most the second. In between, a line for each tenth of the work.
_LEAST_SECONDS, _MOST_SECONDS = 5.0, 30.0
_QUIET_SECONDS = 2.0  # shorter work shows no bar


def track_progress(items: Iterable[T], what: str, *, total: int | None = None, at_once: bool = False) -> Iterator[T]:
    """Pass on the items and report progress as `count_progress` does. `total`: their number if they have no length."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with count_progress(what, total, at_once=at_once) as advance:
        for item in items:
            yield item
            advance()


@contextmanager
def count_progress(
    what: str, total: int | None = None, *, done: int = 0, at_once: bool = False, lines: bool = True
) -> Iterator[Callable[[], Any]]:
    """Gives a function to call after each piece of work. `done` of `total` pieces are done already.

    A bar appears after two seconds, so that short work shows none; with `at_once` it appears immediately. Without a
    terminal, `lines=False` suppresses the log lines, for work that logs each piece itself.
    """
    if not should_show_bars():
        yield _Lines(what, total, done).advance if lines else lambda: None
        return
    bar = _Bar(what, total, done)
    try:
        if at_once:
            bar.start()
        yield bar.advance
    finally:
        bar.stop()


def should_show_bars() -> bool:
    """Whether to draw bars: on a terminal or in a notebook, in the first rank, and unless `--quiet` hides the log."""
    drawn = sys.stderr.isatty() or "ipykernel" in sys.modules
    return drawn and process_rank() == 0 and logging.getLogger(LOGGER).level <= logging.INFO


class _Lines:
    """Occasional lines in the log."""

    def __init__(self, what: str, total: int | None, done: int) -> None:
        self.what, self.total, self.done = what, total, done
        self.began = self.said_at = time.monotonic()
        self.said = done

    def advance(self) -> None:
        self.done += 1
        now = time.monotonic()
        passed = now - self.said_at
        tenth = self.total is not None and 10 * (self.done - self.said) >= self.total
        if passed >= _MOST_SECONDS or (tenth and passed >= _LEAST_SECONDS):
            self.said, self.said_at = self.done, now
            logger.info("%s", self._line(now - self.began))

    def _line(self, seconds: float) -> str:
        after = f"after {timedelta(seconds=round(seconds))}"
        if not self.total:
            return f"{self.what}: {self.done:,} {after}"
        return f"{self.what}: {self.done:,} of {self.total:,} ({self.done / self.total:.0%}) {after}"


class _Bar:
    """A bar of rich on standard error, which disappears when the work is done."""

    def __init__(self, what: str, total: int | None, done: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        text = TextColumn("{task.description}", markup=False)
        columns = (
            (text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            if total is not None
            else (SpinnerColumn(), text, TextColumn("{task.completed:,}"))
        )
        self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self.task = self.bar.add_task(what, total=total, completed=done)
        self.began, self.started = time.monotonic(), False

    def start(self) -> None:
        self.started = True
        self.bar.start()

    def advance(self) -> None:
        self.bar.advance(self.task)
        if not self.started and time.monotonic() - self.began > _QUIET_SECONDS:
            self.start()

    def stop(self) -> None:
        self.bar.stop()
