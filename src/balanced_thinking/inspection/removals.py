"""The table of samples to remove: `balanced inspect --rows FILE` writes it, `balanced convert --without FILE` reads it.

Columns: `row` (in the file, if known), `id`, `problem`, `detail`, and `digest` of what the sample says, because an id
may be the row's number, which changes when a row is removed. Bad rows are listed for the user to fix. They are not
removed through this table, because a good row may have the same id; `--on-bad-row drop` leaves them out.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from balanced_thinking.data.bad_rows import PROBLEMS, DataError
from balanced_thinking.data.example import Example
from balanced_thinking.inspection.facts import Inspection
from balanced_thinking.inspection.summary import make_printable
from balanced_thinking.inspection.text import describe_duplicate_pair
from balanced_thinking.system.files import write_atomically
from balanced_thinking.system.spreadsheets import disarm_formula, rearm_formula

_COLUMNS = ("row", "id", "problem", "detail", "digest")
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
    examples = {sample.example.id: sample.example for sample in found.samples}
    for bad in found.bad_rows:
        detail = make_printable(bad.text[:_SHOWN_CHARACTERS])
        yield bad.row, make_printable(bad.id or ""), " ".join(bad.problems), detail, ""
    listed = [(one, f"leak_{one.kind}") for one in found.leaks]
    listed += [(one, "repeated") for one in found.repeats]
    listed += [(one, _ONLY_LISTED) for one in found.shared_questions]
    for one, problem in listed:
        example = examples[one.id]
        yield example.meta.get("row", ""), one.id, problem, describe_duplicate_pair(one), _digest_texts(example)


def _digest_texts(example: Example) -> str:
    said = repr((example.question.strip().split("\n")[0], example.answer))  # options may be listed below
    return hashlib.sha256(said.encode("utf-8", "backslashreplace")).hexdigest()[:12]


def read_removals(path: Path) -> dict[str, str]:
    """The ids of the samples to remove, each with its digest ("": not recorded). Raises DataError for other columns."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if not {"id", "problem"} <= set(rows.fieldnames or ()):
            raise DataError(
                f"{path} has the columns {', '.join(rows.fieldnames or ()) or 'none'}; expected id and problem, as "
                "`balanced inspect DATA --rows FILE` writes them"
            )
        kept = {*PROBLEMS, _ONLY_LISTED}
        return {
            rearm_formula(row["id"]): row.get("digest") or ""
            for row in rows
            if kept.isdisjoint((row["problem"] or "").split())
        }


def leave_out_samples(
    examples: Iterable[Example], removals: Mapping[str, str], table: Path | None
) -> Iterator[Example]:
    """The examples without those to remove.

    Raises DataError, before the last example, where one is not in the data or says something else than it did.
    """
    missing = dict(removals)
    for example in examples:
        if example.id not in removals:
            yield example
        elif missing.pop(example.id, "") not in ("", _digest_texts(example)):
            raise DataError(
                f"sample {example.id} is not the one that {table} lists: the data have changed since, or are read with "
                f"other options; ids may be numbers of rows. Run `balanced inspect --rows {table}` again"
            )
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(removals)} samples to leave out ({min(missing)} is one) are not in this data: "
            f"run `balanced inspect --rows {table}` on the same file and split again"
        )
