"""The parts, in the order in which they run, and how each is run: in a process of its own, with its own time limit."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from gpu.rows import Row, Setting, read_rows, why, write_row

DONE, FAILED, OUT_OF_TIME, SKIPPED = "done", "failed", "stopped at its time limit", "skipped: the time was over"
_LEAST_SECONDS = 15  # a part that would have less is not begun
_RESERVE_SECONDS = 3  # for the table
_CPU_PATIENCE = 4.0  # a CPU may be busy with other things


@dataclass(frozen=True)
class Part:
    """`module` has `measure(setting, emit)`; it gets at most `seconds` on a GPU, four times that on a CPU."""

    module: str
    seconds: float
    about: str


PARTS: Mapping[str, Part] = {
    "head": Part("gpu.head_exactness", 90, "the head against float64, every option, three dtypes"),
    "head-speed": Part("gpu.head_speed", 60, "the head and its peers: time and memory"),
    "packing": Part("gpu.packed_attention", 60, "packed samples against padded ones and float32"),
    "sft": Part("gpu.sft", 120, "a training step of a 3B-shaped model"),
    "generation": Part("gpu.answers", 80, "answers of a 3B-shaped model"),
    "grpo": Part("gpu.rollouts", 80, "a step of GRPO"),
}


@dataclass
class Outcome:
    """How a part ended, and the rows that it had by then."""

    status: str
    seconds: float = 0.0
    limit_seconds: float = 0.0
    why: str = ""
    rows: list[Row] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether the part came to its end and none of its checks failed."""
        return self.status == DONE and all(row.holds is not False for row in self.rows)


def run_part(name: str, setting: Setting, folder: Path, deadline: float) -> Outcome:
    """Run one part; `deadline` is when everything must be done, on `time.monotonic()`.

    On a GPU each part starts a new interpreter, because CUDA does not survive a fork. On a CPU it is forked, so that
    nothing is imported again.
    """
    left = deadline - _RESERVE_SECONDS - time.monotonic()
    if left < _LEAST_SECONDS:
        return Outcome(SKIPPED)
    seconds = PARTS[name].seconds * (_CPU_PATIENCE if setting.small else 1.0)
    limit, start, rows = min(seconds, left), time.monotonic(), folder / f"{name}.jsonl"
    rows.unlink(missing_ok=True)
    context = multiprocessing.get_context("fork" if setting.small else "spawn")
    process: Any = context.Process(target=measure_part, args=(name, setting, rows, folder / f"{name}.log"))
    process.start()
    process.join(limit)
    ended = not process.is_alive()
    if not ended:
        process.kill()
        process.join()
    outcome = Outcome(DONE, time.monotonic() - start, limit, rows=read_rows(rows))
    if not ended:
        outcome.status = OUT_OF_TIME
    elif process.exitcode != 0:
        outcome.status, outcome.why = FAILED, _reason(rows.with_suffix(".why"), process.exitcode)
    return outcome


def _reason(file: Path, code: int) -> str:
    if file.exists():
        return file.read_text()
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def measure_part(name: str, setting: Setting, rows: Path, log: Path) -> None:
    """In the part's own process: all that libraries print goes to `log`."""
    rows.with_suffix(".why").unlink(missing_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    import torch

    torch.set_num_threads(setting.threads)
    try:
        import_module(PARTS[name].module).measure(setting, lambda row: write_row(rows, row))
    except BaseException as error:
        with contextlib.suppress(OSError):
            rows.with_suffix(".why").write_text(why(error))
        raise
