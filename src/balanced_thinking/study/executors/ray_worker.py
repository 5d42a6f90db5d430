"""A run that is a Ray task."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from balanced_thinking.runs.paths import RunFiles
from balanced_thinking.study.executors.on_nodes import NodeResult
from balanced_thinking.study.executors.shared_folder import PATIENCE_SECONDS, refresh_folders
from balanced_thinking.study.plan import PlannedRun
from balanced_thinking.study.worker import missing_parts

logger = logging.getLogger(__name__)
MOST_LOSSES = 3  # of the node or the Ray process under a run, which is no fault of the run


class RayWorker:
    """The methods of `subprocess.Popen` for a task.

    A task that was lost with its node is submitted again: its run continues from the newest checkpoint elsewhere. A
    run that failed, or that a signal ended, is not: that is the study's business, as on one machine.
    """

    def __init__(self, ray: Any, submit: Callable[[], Any], root: Path, run: PlannedRun) -> None:
        self._ray, self._submit, self._root, self._run = ray, submit, root, run
        self._task = submit()
        self._losses, self._stopping = 0, False
        self._deadline: float | None = None
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None and self._deadline is None and self._ray.wait([self._task], timeout=0)[0]:
            self._code = self._collect_code()
        if self._deadline is not None:
            self._code = self._wait_for_results(self._deadline)
        return self._code

    def send_signal(self, number: int) -> None:
        """The task passes SIGTERM on (`watch_program`), whatever the number."""
        self._stopping = True
        self._ray.cancel(self._task)

    def kill(self) -> None:
        """A second SIGTERM ends a run at once."""
        self.send_signal(signal.SIGKILL)

    def _collect_code(self) -> int | None:
        """The exit code of a task that has ended; None if it was submitted again, or its results are not seen yet."""
        errors = self._ray.exceptions
        try:
            result: NodeResult = self._ray.get(self._task)
        except errors.TaskCancelledError:
            return -signal.SIGTERM
        except errors.RayTaskError as error:
            return self._note_failure(f"its task failed: {_last_line(error)}")
        except errors.RayError as error:
            return self._submit_again(type(error).__name__)
        if result.error:
            return self._note_failure(result.error)
        if result.code == 0:
            self._deadline = time.monotonic() + PATIENCE_SECONDS
            return None
        return result.code

    def _submit_again(self, why: str) -> int | None:
        self._losses += 1
        said = f"lost with its node or the Ray process there ({why})"
        if self._stopping:
            return -signal.SIGTERM
        if self._losses > MOST_LOSSES:
            return self._note_failure(f"{said}, {self._losses} times")
        logger.warning("%s: %s; started again", self._run.name, said)
        self._task = self._submit()
        return None

    def _wait_for_results(self, deadline: float) -> int | None:
        """0 once this machine sees what the node has written."""
        if not missing_parts(self._root, self._run):
            return 0
        if time.monotonic() > deadline:
            return self._note_failure(f"it has finished, but its results did not appear in {PATIENCE_SECONDS:.0f} s")
        files = RunFiles(self._root / self._run.name)
        refresh_folders([files.folder, files.evaluations, *(files.evaluations / one for one in self._run.evaluations)])
        return None

    def _note_failure(self, why: str) -> int:
        """Write to the log of the run why it failed: a task that is gone cannot. Returns the exit code."""
        with RunFiles(self._root / self._run.name).log.open("a") as log:
            log.write(f"{why}\n")
        return 1


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
