"""What an evaluation has answered so far, kept beside its results, so that one that was stopped goes on.

Every rank writes a file of its own and reads all of them, so an evaluation may go on with another number of ranks.
Batches are cut beforehand and written down whole or not at all: what a sample is padded to, and with it the last bit of
its logits, stays what it would have been. With another batch size what was answered is kept, and the rest is cut anew.
A line is a batch: the wall and CPU seconds that it took, and its rows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, parse_flag_from_env

from balanced_thinking.system.files import exclusive_lock, write_atomically

Row = dict[str, Any]
Seconds = tuple[float, float]  # on the wall, of the CPU
_PATIENCE = timedelta(days=1)  # of a rank that has answered its share: the others may generate for long


def ranks() -> PartialState:
    """The processes that share an evaluation: one, unless it was started by `accelerate launch`."""
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU")  # `--cpu`; read by accelerate's own state in training alone
    return PartialState(cpu=on_cpu, **InitProcessGroupKwargs(timeout=_PATIENCE).to_kwargs())


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Keep other processes from evaluating to `out`. Raises BlockingIOError, on all ranks, where one does already."""
    held = [True]
    with ExitStack() as stack:
        if ranks().is_main_process:
            out.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(exclusive_lock(out))
            except BlockingIOError:
                held = [False]
        if not broadcast_object_list(held)[0]:
            raise BlockingIOError(f"another process evaluates to {out}; wait for its end, or choose another --out")
        yield


class Answers:
    """What was answered before, by the example's index (`kept`, the main rank's), and this rank's share of the batches
    that are left (`todo`).

    Args:
        out: the folder of the results. task: what is evaluated; rows of another task are thrown away.
        batches: all of them, as indices.
    """

    def __init__(self, out: Path, task: str, batches: Sequence[Sequence[int]]) -> None:
        self._out, self._state = out, ranks()
        self._began = self._last = _clocks()
        found, self._before = _found(out, task)
        self._state.wait_for_everyone()  # before any file is replaced
        left = [rest for batch in batches if (rest := [i for i in batch if i not in found])]
        self.kept = found if self._state.is_main_process else {}
        self.todo = left[self._state.process_index :: self._state.num_processes]
        path = out / _name(self._state.process_index)
        write_atomically(path, f"{task}\n" + _line(self._before, self.kept))
        self._state.wait_for_everyone()
        if self._state.is_main_process:
            for file in _files(out) - {out / _name(rank) for rank in range(self._state.num_processes)}:
                file.unlink()
        self._file = path.open("a", encoding="utf-8")

    def add(self, rows: Mapping[int, Row]) -> None:
        """Write one batch down."""
        now = _clocks()
        self._file.write(_line(_minus(now, self._last), rows))
        self._file.flush()
        self._last = now

    def seconds(self) -> Seconds:
        """What was spent so far, by earlier tries too."""
        wall, cpu = _minus(_clocks(), self._began)
        return self._before[0] + wall, self._before[1] + cpu

    def close(self) -> None:
        self._file.close()

    def forget(self) -> None:
        """Once the results are written."""
        self._state.wait_for_everyone()
        if self._state.is_main_process:
            for file in _files(self._out):
                file.unlink(missing_ok=True)


def _clocks() -> Seconds:
    return time.perf_counter(), time.process_time()


def _minus(a: Seconds, b: Seconds) -> Seconds:
    return a[0] - b[0], a[1] - b[1]


def _name(rank: int | str) -> str:
    return f".resume-{rank}.jsonl"


def _files(out: Path) -> set[Path]:
    return set(out.glob(_name("*")))


def _line(seconds: Seconds, rows: Mapping[int, Row]) -> str:
    return json.dumps([*seconds, list(rows.items())], ensure_ascii=False) + "\n"


def _found(out: Path, task: str) -> tuple[dict[int, Row], Seconds]:
    """What earlier tries at the same task have written, and the seconds of the rank that took longest."""
    found: dict[int, Row] = {}
    spent = (0.0, 0.0)
    for file in _files(out):
        batches = list(_batches(file, task))
        for _, _, rows in batches:
            found |= dict(rows)
        spent = max(spent, (sum(wall for wall, _, _ in batches), sum(cpu for _, cpu, _ in batches)))
    return found, spent


def _batches(file: Path, task: str) -> Iterator[tuple[float, float, list[tuple[int, Row]]]]:
    """The batches of a rank's file, if it is of this task; one that a kill cut short is left out."""
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n")  # splitlines would also split at U+2028
    for line in lines[1:] if lines[0] == task else ():
        try:
            wall, cpu, rows = json.loads(line)
        except (ValueError, TypeError):
            continue
        yield wall, cpu, rows
