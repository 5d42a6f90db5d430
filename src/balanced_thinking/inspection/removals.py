"""The table of samples to remove: `balanced inspect --rows FILE` writes it, `balanced convert --without FILE` reads it.

Columns: `row` (in the file, if known), `id`, `problem`, `detail`. Bad rows are listed for the user to fix. They are not
removed through this table, because a good row may have the same id; `--on-bad-row drop` leaves them out.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from balanced_thinking.data.bad_rows import PROBLEMS, DataError
from balanced_thinking.inspection.facts import Inspection
from balanced_thinking.inspection.summary import make_printable
from balanced_thinking.inspection.text import describe_duplicate_pair
from balanced_thinking.system.files import write_atomically
from balanced_thinking.system.spreadsheets import disarm_formula, rearm_formula

_COLUMNS = ("row", "id", "problem", "detail")
_SHOWN_CHARACTERS = 200  # of a bad row
_ONLY_LISTED = "asked_of_another_picture"  # a problem that does not remove its sample


def write_removals(found: Inspection, path: Path) -> Path:
    """Write every bad row, every repeated sample and every sample that is in a benchmark."""
    text = io.StringIO()
    rows = ([disarm_formula(cell) for cell in row] for row in _removal_rows(found))
    csv.writer(text, lineterminator="\n").writerows([_COLUMNS, *rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.getvalue())
    return path


def _removal_rows(found: Inspection) -> Iterator[tuple[object, ...]]:
    rows = {sample.example.id: sample.example.meta.get("row", "") for sample in found.samples}
    for bad in found.bad_rows:
        detail = make_printable(bad.text[:_SHOWN_CHARACTERS])
        yield bad.row, make_printable(bad.id or ""), " ".join(bad.problems), detail
    for one in found.leaks:
        yield rows[one.id], one.id, f"leak_{one.kind}", describe_duplicate_pair(one)
    for one in found.repeats:
        yield rows[one.id], one.id, "repeated", describe_duplicate_pair(one)
    for one in found.shared_questions:
        yield rows[one.id], one.id, _ONLY_LISTED, describe_duplicate_pair(one)


def read_removals(path: Path) -> frozenset[str]:
    """The ids of the samples to remove. Raises DataError for a file with other columns."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if not {"id", "problem"} <= set(rows.fieldnames or ()):
            raise DataError(
                f"{path} has the columns {', '.join(rows.fieldnames or ()) or 'none'}; expected id and problem, as "
                "`balanced inspect DATA --rows FILE` writes them"
            )
        kept = {*PROBLEMS, _ONLY_LISTED}
        return frozenset(rearm_formula(row["id"]) for row in rows if kept.isdisjoint((row["problem"] or "").split()))
