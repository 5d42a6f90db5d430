"""Which runs of a study wait, run, have ended and have failed, and on which GPU each runs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from balanced_thinking.study.plan import PlannedRun


class EndedRun(NamedTuple):
    """A run whose process has ended, with its exit code."""

    run: PlannedRun
    code: int


@dataclass
class RunSchedule:
    """The runs of a study by state. `left_out` are those whose parent failed."""

    waiting: list[PlannedRun]
    gpus: list[str] = field(default_factory=list)
    running: dict[subprocess.Popen[bytes], PlannedRun] = field(default_factory=dict)
    failed: list[PlannedRun] = field(default_factory=list)
    left_out: list[PlannedRun] = field(default_factory=list)
    gpu_of: dict[str, str] = field(default_factory=dict)  # by the name of the run

    def next_ready(self) -> PlannedRun | None:
        """The next waiting run whose parent neither waits nor runs."""
        busy = {run.name for run in (*self.waiting, *self.running.values())}
        return next((run for run in self.waiting if run.after not in busy), None)

    def assign_gpu(self, run: PlannedRun) -> dict[str, str]:
        """Give the run the GPU with the fewest others on it. Returns the environment in which it sees that GPU only."""
        if not self.gpus:
            return {}
        taken = [self.gpu_of[other.name] for other in self.running.values()]
        self.gpu_of[run.name] = min(self.gpus, key=taken.count)
        return {"CUDA_VISIBLE_DEVICES": self.gpu_of[run.name]}

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
