"""MathVista (AI4Math/MathVista): the authors' folder (`<split>.json` and `images/`), or the hub's table.

The question lists its options with letters and gives the unit. The answer is an option's text, a number or a list.
There is no reasoning. The answers of `test` are withheld, so its rows are bad rows (`no_answer`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from balanced_thinking.data.bad_rows import BadRow, DataError
from balanced_thinking.data.example import Example, format_question
from balanced_thinking.data.options import check_known_name
from balanced_thinking.data.records import read_named_objects
from balanced_thinking.data.sources import stream_rows
from balanced_thinking.data.tables import is_hub_or_parquet, open_cell_images
from balanced_thinking.system.files import expand_home

TEST = {"split": "testmini"}  # the items that `--against` compares with
HUB = ("AI4Math/MathVista",)
SPLITS = ("testmini", "test")


def recognises(path: Path) -> bool:
    """Whether it is the authors' folder."""
    return (path / "testmini.json").is_file()


def load(path: str | Path, *, split: str = "testmini") -> Iterator[Example | BadRow]:
    """Yield one `Example` or `BadRow` per problem of the split. Raises DataError for another folder or split."""
    check_known_name("MathVista", "split", split, SPLITS)
    if is_hub_or_parquet(path):
        for row, cells in stream_rows(path, split):
            yield _build_example(row, cells, open_cell_images(cells.get("decoded_image")))
        return
    folder = expand_home(path)
    file = folder / f"{split}.json"
    if not file.is_file():
        raise DataError(f"{folder} is not MathVista: expected {file.name} in it")
    for row, (_, item) in enumerate(read_named_objects(file), 1):
        yield item if isinstance(item, BadRow) else _build_example(row, item, (folder / str(item.get("image")),))


def _build_example(row: int, item: dict[str, Any], images: tuple[Any, ...] | None) -> Example | BadRow:
    name = str(item.get("pid") or row)
    if not images:
        return BadRow(row, ("missing_image" if images == () else "broken_image",), str(item.get("image")), name)
    if not item.get("question"):
        return BadRow(row, ("unknown_schema",), f"keys: {', '.join(item)}", name)
    choices, about = tuple(map(str, item.get("choices") or ())), item.get("metadata") or {}
    return Example(
        id=name,
        question=format_question(str(item["question"]), choices, item.get("unit")),
        images=images,
        think=None,
        answer=str(item.get("answer") or ""),
        choices=choices,
        meta={"family": about.get("task"), "type": item.get("answer_type"), "unit": item.get("unit"), "row": row},
    )
