"""Rows to take out as a table: `balanced inspect --rows FILE` writes it, `balanced convert --without FILE` reads it.

Columns: `row` (in the file, where it is known), `id`, `problem`, `detail`. Bad rows are listed for whoever mends them;
leaving them out is `--on-bad-row drop`'s business, for an id of theirs may be a good row's, too.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from balanced_thinking.data.bad_rows import PROBLEMS
from balanced_thinking.inspection.facts import Inspection
from balanced_thinking.inspection.text import printable, told
from balanced_thinking.system.files import write_atomically

_COLUMNS = ("row", "id", "problem", "detail")
_SHOWN = 200  # characters of a bad row
_WEAK = "asked_of_another_picture"  # listed, but not taken out


def write_drops(found: Inspection, path: Path) -> Path:
    """Every bad row, every repeated sample and every one of a benchmark."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_COLUMNS, *_rows(found)])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.getvalue())
    return path


def _rows(found: Inspection) -> Iterator[tuple[object, ...]]:
    places = {sample.example.id: sample.example.meta.get("row", "") for sample in found.samples}
    for bad in found.bad_rows:
        yield bad.row, printable(bad.id or ""), " ".join(bad.problems), printable(bad.text[:_SHOWN])
    for twin in (*found.leaks, *found.twins):
        yield places[twin.id], twin.id, f"leak_{twin.kind}" if twin.where else "repeated", told(twin)
    for twin in found.asked:
        yield places[twin.id], twin.id, _WEAK, told(twin)


def read_drops(path: Path) -> frozenset[str]:
    """The ids of the good rows to take out. Raises ValueError for a file of another kind."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if not {"id", "problem"} <= set(rows.fieldnames or ()):
            raise ValueError(
                f"{path} has the columns {', '.join(rows.fieldnames or ()) or 'none'}; expected id and problem, as "
                "`balanced inspect DATA --rows FILE` writes them"
            )
        return frozenset(row["id"] for row in rows if not {*(row["problem"] or "").split()} & {*PROBLEMS, _WEAK})
