"""Which runs of a study wait, run, have ended and have failed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from balanced_thinking.study.executors.interface import Worker
from balanced_thinking.study.plan import PlannedRun


class EndedRun(NamedTuple):
    """A run whose process has ended, with its exit code."""

    run: PlannedRun
    code: int


@dataclass
class RunSchedule:
    """The runs of a study by state. `left_out` are those whose parent failed."""

    waiting: list[PlannedRun]
    running: dict[Worker, PlannedRun] = field(default_factory=dict)
    failed: list[PlannedRun] = field(default_factory=list)
    left_out: list[PlannedRun] = field(default_factory=list)

    def next_ready(self) -> PlannedRun | None:
        """The next waiting run whose parent neither waits nor runs."""
        busy = {run.name for run in (*self.waiting, *self.running.values())}
        return next((run for run in self.waiting if run.after not in busy), None)

    def collect_ended(self) -> Iterator[EndedRun]:
        """Take the runs whose process has ended off `running`. A failed run's children are left out."""
        for process, run in list(self.running.items()):
            code = process.poll()
            if code is None:
                continue
            del self.running[process]
            if code:
                self.failed.append(run)
                self._leave_out_children(run)
            yield EndedRun(run, code)

    def _leave_out_children(self, parent: PlannedRun) -> None:
        for child in [other for other in self.waiting if other.after == parent.name]:
            self.waiting.remove(child)
            self.left_out.append(child)
            self._leave_out_children(child)
