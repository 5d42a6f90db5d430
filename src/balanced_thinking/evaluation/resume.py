"""What an evaluation has answered so far, kept beside its results, so that one that was stopped continues.

Every rank writes a file of its own and reads all of them, so an evaluation may continue with another number of ranks.
Batches are formed beforehand and written completely or not at all: a sample's padding, and with it the last bit of its
logits, stays what it would have been. With another batch size the answers are kept, and the rest is batched anew.
The first line identifies the task, the second has its settings, for messages. Each other line is one batch: the wall
and CPU seconds that it took, and its rows.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import PartialState
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, parse_flag_from_env

from balanced_thinking.config.errors import FileInTheWayError
from balanced_thinking.config.foreign_json import parse_json
from balanced_thinking.system.files import write_atomically
from balanced_thinking.system.locks import FolderBusyError, hold_folder
from balanced_thinking.system.process import Clock, read_clock

Row = dict[str, Any]
SERVED_MODEL = "served_model"  # the setting that only a server has
_PATIENCE = timedelta(days=1)  # of a rank that has answered its share: the others may generate for long


def evaluation_ranks() -> PartialState:
    """The processes that share an evaluation: one, unless it was started by `accelerate launch`."""
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU")  # `--cpu`; accelerate's own state reads it in training alone
    return PartialState(cpu=on_cpu, **InitProcessGroupKwargs(timeout=_PATIENCE).to_kwargs())


@contextmanager
def hold_results(folders: Sequence[Path]) -> Iterator[None]:
    """Keep other processes from evaluating to these folders. Raises FolderBusyError, on all ranks, where one does."""
    refused: list[str | None] = [None]
    with ExitStack() as stack:
        if evaluation_ranks().is_main_process:
            try:
                for folder in folders:
                    stack.enter_context(hold_folder(folder, "evaluating"))
            except FolderBusyError as error:
                refused = [str(error)]
        if (message := broadcast_object_list(refused)[0]) is not None:
            raise FolderBusyError(message)
        yield


@contextmanager
def shared_temporary_folder() -> Iterator[Path]:
    """One folder for all ranks, deleted afterwards."""
    ranks = evaluation_ranks()
    made = [tempfile.mkdtemp(prefix="balanced-") if ranks.is_main_process else ""]
    folder = Path(broadcast_object_list(made)[0])
    try:
        yield folder
    finally:
        ranks.wait_for_everyone()
        if ranks.is_main_process:
            shutil.rmtree(folder, ignore_errors=True)


class SavedAnswers:
    """What was answered before (`kept`, by the example's index, on the main rank) and this rank's share of the batches
    that are not answered yet (`open_batches`).

    Args:
        out: the folder of the results. identity: of the task; rows of another task, or of a server's other
            model, are deleted.
        batches: all of them, as indices. settings: of the task, to name where another one differs.
    """

    def __init__(
        self, out: Path, identity: str, batches: Sequence[Sequence[int]], settings: Mapping[str, str] | None = None
    ) -> None:
        self._out, self._ranks = out, evaluation_ranks()
        self._began = self._last = read_clock()
        settings = settings or {}
        found, self._before = _read_earlier_tries(out, identity, settings.get(SERVED_MODEL, ""))
        self._ranks.wait_for_everyone()  # before any file is replaced
        unanswered = [rest for batch in batches if (rest := [i for i in batch if i not in found])]
        self.kept = found if self._ranks.is_main_process else {}
        self.open_batches = unanswered[self._ranks.process_index :: self._ranks.num_processes]
        path = out / _file_name(self._ranks.process_index)
        head = f"{identity}\n{json.dumps(dict(settings), ensure_ascii=False)}\n"
        write_atomically(path, head + _batch_line(self._before, self.kept))
        self._ranks.wait_for_everyone()
        if self._ranks.is_main_process:
            for file in _files_in(out) - {out / _file_name(rank) for rank in range(self._ranks.num_processes)}:
                file.unlink()
        self._file = path.open("a", encoding="utf-8")

    def append_batch(self, rows: Mapping[int, Row]) -> None:
        now = read_clock()
        self._file.write(_batch_line(now.since(self._last), rows))
        self._file.flush()
        self._last = now

    def spent_seconds(self) -> Clock:
        """What this try and earlier ones took."""
        return self._before.plus(read_clock().since(self._began))

    def close(self) -> None:
        self._file.close()

    def delete_files(self) -> None:
        """Called once the results are written."""
        self._ranks.wait_for_everyone()
        if self._ranks.is_main_process:
            for file in _files_in(self._out):
                file.unlink(missing_ok=True)


def refuse_other_served_model(out: Path, identity: str, served: str) -> None:
    """Raises FileExistsError where another model of the server has answered a part of this task."""
    for file in _files_in(out):
        if (before := _served_before(file, identity)) not in ("", served):
            raise FileInTheWayError(
                f"{out} holds answers of the server's model {before}, but the server has {served} now: serve the first "
                "one again, choose another --out, or delete these answers with --overwrite"
            )


def _served_before(file: Path, identity: str) -> str:
    """The server's model whose answers to this task a file holds; empty where it names none."""
    lines = _read_lines(file)
    return str(_read_settings(lines[1:2]).get(SERVED_MODEL, "")) if lines[0] == identity else ""


class OtherAnswers(NamedTuple):
    """Of another task: how many examples were answered, and its settings; none where an earlier version wrote them."""

    number: int
    settings: Mapping[str, Any]


def find_other_answers(out: Path, identity: str) -> OtherAnswers | None:
    """The answers of another task that was stopped; None where there are none, or this task has begun since."""
    lines = {file: _read_lines(file) for file in _files_in(out)}
    if any(found[0] == identity for found in lines.values()):
        return None
    answered: set[int] = set()
    settings: Mapping[str, Any] = {}
    for file, found in lines.items():
        answered |= {index for _, rows in read_batches(file, found[0]) for index, _ in rows}
        settings = settings or _read_settings(found[1:2])
    return OtherAnswers(len(answered), settings) if answered else None


def _read_settings(lines: Sequence[str]) -> Mapping[str, Any]:
    try:
        found = parse_json(lines[0]) if lines else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _read_lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8", errors="replace").split("\n")  # splitlines would also split at U+2028


def _file_name(rank: int | str) -> str:
    return f".resume-{rank}.jsonl"


def _files_in(out: Path) -> set[Path]:
    return set(out.glob(_file_name("*")))


def _batch_line(seconds: Clock, rows: Mapping[int, Row]) -> str:
    return json.dumps([*seconds, list(rows.items())], ensure_ascii=False) + "\n"


def _read_earlier_tries(out: Path, identity: str, served: str) -> tuple[dict[int, Row], Clock]:
    """The rows that earlier tries at the task have written, and the seconds of the rank that took longest.

    Of a server only those of the model that it has now, `served`.
    """
    found: dict[int, Row] = {}
    longest = Clock()
    for file in _files_in(out):
        if _served_before(file, identity) not in ("", served):
            continue
        batches = list(read_batches(file, identity))
        for _, rows in batches:
            found |= dict(rows)
        spent = Clock(sum(batch.wall_seconds for batch, _ in batches), sum(batch.cpu_seconds for batch, _ in batches))
        longest = max(longest, spent)
    return found, longest


def read_batches(file: Path, identity: str) -> Iterator[tuple[Clock, list[tuple[int, Row]]]]:
    """The batches of a rank's file, if it is of this task. One that a kill cut short, or that is none, is left out."""
    lines = _read_lines(file)
    for line in lines[1:] if lines[0] == identity else ():
        try:
            wall, cpu, rows = parse_json(line)
            clock, batch = Clock(float(wall), float(cpu)), [(index, row) for index, row in rows]
        except (ValueError, TypeError, OverflowError, RecursionError):
            continue
        if all(type(index) is int and isinstance(row, dict) for index, row in batch):
            yield clock, batch
