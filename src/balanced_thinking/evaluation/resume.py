"""What an evaluation has answered so far, kept beside its results, so that one that was stopped goes on.

Every rank writes a file of its own and reads all of them, so an evaluation may go on with another number of ranks.
Batches are cut beforehand and written down whole or not at all: what a sample is padded to, and with it the last bit of
its logits, stays what it would have been. With another batch size what was answered is kept, and the rest is cut anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list

from balanced_thinking import runs

Row = dict[str, Any]
_PATIENCE = timedelta(days=1)  # of a rank that has answered its share: the others may generate for long


def ranks() -> PartialState:
    """The processes that share an evaluation: one, unless it was started by `accelerate launch`."""
    return PartialState(**InitProcessGroupKwargs(timeout=_PATIENCE).to_kwargs())


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Keep other processes from evaluating to `out`. Raises BlockingIOError, on all ranks, where one does already."""
    held = [True]
    with ExitStack() as stack:
        if ranks().is_main_process:
            out.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(runs.locked(out))
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
        batches: all of them, as indices. fresh: throw away whatever is there.
    """

    def __init__(self, out: Path, task: str, batches: Sequence[Sequence[int]], *, fresh: bool) -> None:
        self._out, self._state = out, ranks()
        found = {} if fresh else _found(out, task)
        self._state.wait_for_everyone()  # before any file is replaced
        left = [rest for batch in batches if (rest := [i for i in batch if i not in found])]
        self.kept = found if self._state.is_main_process else {}
        self.todo = left[self._state.process_index :: self._state.num_processes]
        path = out / _name(self._state.process_index)
        runs.write_atomically(path, f"{task}\n" + (_line(self.kept) if self.kept else ""))
        self._state.wait_for_everyone()
        if self._state.is_main_process:
            for file in _files(out) - {out / _name(rank) for rank in range(self._state.num_processes)}:
                file.unlink()
        self._file = path.open("a", encoding="utf-8")

    def add(self, rows: Mapping[int, Row]) -> None:
        """Write one batch down."""
        self._file.write(_line(rows))
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def forget(self) -> None:
        """Once the results are written."""
        self._state.wait_for_everyone()
        if self._state.is_main_process:
            for file in _files(self._out):
                file.unlink(missing_ok=True)


def _name(rank: int | str) -> str:
    return f".resume-{rank}.jsonl"


def _files(out: Path) -> set[Path]:
    return set(out.glob(_name("*")))


def _line(rows: Mapping[int, Row]) -> str:
    """A batch."""
    return json.dumps(list(rows.items()), ensure_ascii=False) + "\n"


def _found(out: Path, task: str) -> dict[int, Row]:
    """What earlier tries at the same task have written; a batch that a kill cut short is left out."""
    found: dict[int, Row] = {}
    for file in _files(out):
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n")  # splitlines would also split at U+2028
        for line in lines[1:] if lines[0] == task else ():
            try:
                found |= dict(json.loads(line))
            except (ValueError, TypeError):
                continue
    return found
