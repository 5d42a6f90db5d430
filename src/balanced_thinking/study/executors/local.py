"""Each run is a process of this machine, on the GPU with the fewest others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from balanced_thinking.runs.paths import RunFiles
from balanced_thinking.study.check import check_runs, visible_gpus
from balanced_thinking.study.executors.interface import Worker
from balanced_thinking.study.plan import PlannedRun, Study
from balanced_thinking.system.process import usable_cores


class LocalExecutor:
    """Runs as processes of this machine."""

    def __init__(self) -> None:
        self._gpu_of: dict[Worker, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    @cached_property
    def _gpus(self) -> list[str]:
        return visible_gpus()

    def count_slots(self) -> int:
        """The number of GPUs, or of CPU cores where there is no GPU."""
        return len(self._gpus) or usable_cores()

    def check(self, study: Study, root: Path) -> None:
        check_runs(study, root)

    def start(self, root: Path, run: PlannedRun, jobs: int, others: Collection[Worker]) -> subprocess.Popen[bytes]:
        threads = max(1, usable_cores() // jobs)
        environment = {"OMP_NUM_THREADS": str(threads), "TRANSFORMERS_VERBOSITY": "error"} | os.environ
        gpu = self._least_used_gpu(others)
        environment |= {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
        with RunFiles(root / run.name).log.open("ab") as log:
            command = [sys.executable, "-m", "balanced_thinking.study.worker", str(root), run.name]
            # A process group of its own: Ctrl-C reaches this process alone, which then stops its workers.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        if gpu is not None:
            self._gpu_of[process] = gpu
        return process

    def _least_used_gpu(self, others: Collection[Worker]) -> str | None:
        taken = [self._gpu_of[other] for other in others if other in self._gpu_of]
        return min(self._gpus, key=taken.count, default=None)
