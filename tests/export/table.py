"""The table of docs/export.md from what `make test-export` measured: `python -m tests.export.table`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from tests.conftest import REPOSITORY
from tests.models.families_table import NAMES
from tests.models.family_checks import describe_versions

MEASURED = REPOSITORY / "docs" / "results" / "export.json"
PAGE = REPOSITORY / "docs" / "export.md"


class Row(NamedTuple):
    """Answers that were compared, equal ones, and differences at a near tie; whether plain transformers' own processor
    made the inputs. Of a QLoRA run, how many answers are those of the quantized base that was trained."""

    family: str
    way: str
    asked: int
    equal: int
    near: int
    processor: bool
    as_trained: int | None = None


def write_row(row: Row, file: Path) -> None:
    """Put a row in the place of the one that was there."""
    rows: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    rows[f"{row.family}, {row.way}"] = row._asdict() | {"versions": describe_versions()}
    file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def make_table(rows: dict[str, dict[str, Any]]) -> str:
    lines = ["| model | trained and exported as | equal answers | as with the quantized base | processor |"]
    lines.append("| --- | --- | ---: | ---: | --- |")
    for row in rows.values():
        name = NAMES.get(row["family"], f"`{row['family']}`")
        near = f" ({row['near']} near {'tie' if row['near'] == 1 else 'ties'})" if row["near"] else ""
        trained = "" if row["as_trained"] is None else f"{row['as_trained']} of {row['asked']}"
        processor = "transformers' own" if row["processor"] else "needs torchvision"
        lines.append(f"| {name} | {row['way']} | {row['equal']} of {row['asked']}{near} | {trained} | {processor} |")
    versions = ", ".join(sorted({row["versions"] for row in rows.values()}))
    return "\n".join([*lines, "", f"Measured with {versions}, on a CPU."])


def replace_measured(page: Path, table: str, name: str = "measured") -> None:
    """Puts a table between the marks of a page that have this name."""
    begin, end = (f"<!-- {name}: {word} -->" for word in ("begin", "end"))
    pattern = re.compile(f"{begin}\n.*{end}", re.DOTALL)
    text = pattern.sub(lambda _: f"{begin}\n{table}\n{end}", page.read_text(encoding="utf-8"))
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    replace_measured(PAGE, make_table(json.loads(MEASURED.read_text(encoding="utf-8"))))
