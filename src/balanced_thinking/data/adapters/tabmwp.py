"""TabMWP (lupantech/PromptPG): `problems_<split>.json` and a picture of each table, `tables/<pid>.png`.

The question lists its options with letters and gives the unit. The answer is an option's text or a number. The
reasoning is the published solution.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from balanced_thinking.data.bad_rows import BadRow, DataError
from balanced_thinking.data.example import Example, format_question
from balanced_thinking.data.options import check_known_name
from balanced_thinking.data.records import read_named_objects
from balanced_thinking.system.files import expand_home

SPLITS = ("train", "dev", "test", "dev1k", "test1k")


def recognises(path: Path) -> bool:
    """Whether it is a folder with problems and the pictures of tables."""
    return (path / "tables").is_dir() and any((path / f"problems_{split}.json").is_file() for split in SPLITS)


def load(path: str | Path, *, split: str = "train") -> Iterator[Example | BadRow]:
    """Yield one `Example` or `BadRow` per problem of the split. Raises DataError for another folder or split."""
    folder = expand_home(path)
    check_known_name("TabMWP", "split", split, SPLITS)
    file = folder / f"problems_{split}.json"
    if not file.is_file():
        raise DataError(f"{folder} is not TabMWP with the split {split!r}: expected {file.name} in it")
    for row, (pid, item) in enumerate(read_named_objects(file), 1):
        yield item if isinstance(item, BadRow) else _build_example(folder, row, pid, item)


def _build_example(folder: Path, row: int, pid: str, item: dict[str, Any]) -> Example | BadRow:
    if not item.get("question") or item.get("answer") in (None, ""):
        return BadRow(row, ("unknown_schema",), f"keys: {', '.join(item)}", pid)
    choices = tuple(map(str, item.get("choices") or ()))
    return Example(
        id=pid,
        question=format_question(str(item["question"]), choices, item.get("unit")),
        images=(folder / "tables" / f"{pid}.png",),
        think=str(item.get("solution") or "").strip() or None,
        answer=str(item["answer"]),
        choices=choices,
        meta={"family": item.get("ans_type"), "grade": item.get("grade"), "unit": item.get("unit"), "row": row},
    )
