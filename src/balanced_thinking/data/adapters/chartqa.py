"""ChartQA: the authors' folder (`<split>/<split>_human.json`, `_augmented.json`, `png/`), or a table of the hub.

Answers are numbers or words, without reasoning. Score them with `--scorer relaxed`. The hub's columns may be those of
HuggingFaceM4 (`query`, `label`) or lmms-lab (`question`, `answer`, `type`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from balanced_thinking.data.bad_rows import BadRow, DataError
from balanced_thinking.data.example import Example
from balanced_thinking.data.records import read_records
from balanced_thinking.data.sources import stream_rows
from balanced_thinking.data.tables import is_hub_or_parquet, open_cell_images
from balanced_thinking.system.files import expand_home

HUB = ("HuggingFaceM4/ChartQA", "lmms-lab/ChartQA", "ahmed-masry/ChartQA")
PARTS = ("human", "augmented")
_PARTS_BY_LABEL = {"machine": "augmented"}  # the hub has this name for it
SPLITS = ("train", "val", "test")


def recognises(path: Path) -> bool:
    """Whether it is the authors' folder."""
    return any((path / split / f"{split}_{part}.json").is_file() for split in SPLITS for part in PARTS)


def load(path: str | Path, *, split: str = "test") -> Iterator[Example | BadRow]:
    """Yield one `Example` or `BadRow` per question of the split. Raises DataError for another folder or split."""
    if is_hub_or_parquet(path):
        for row, cells in stream_rows(path, split):
            yield _read_table_row(row, cells)
        return
    folder = expand_home(path) / split
    files = [file for part in PARTS if (file := folder / f"{split}_{part}.json").is_file()]
    if not files:
        raise DataError(f"{folder} is not ChartQA: expected {split}_human.json or {split}_augmented.json in it")
    for part, file in ((file.stem.removeprefix(f"{split}_"), file) for file in files):
        for row, item in read_records(file):
            yield item if isinstance(item, BadRow) else _read_file_row(folder, part, row, item)


def _read_file_row(folder: Path, part: str, row: int, item: dict[str, Any]) -> Example | BadRow:
    return _build_example(f"{part}-{row:05d}", row, item, part, (folder / "png" / str(item.get("imgname")),))


def _read_table_row(row: int, item: dict[str, Any]) -> Example | BadRow:
    machine = item.get("human_or_machine")
    written = str(item.get("type") or machine or "").removesuffix("_test")
    part = PARTS[machine] if isinstance(machine, int) else _PARTS_BY_LABEL.get(written, written)
    cell = item.get("image")
    found = open_cell_images({"bytes": cell, "path": None} if isinstance(cell, bytes) else cell)
    name = f"row-{row:05d}"
    if not found:
        problem = "missing_image" if found == () else "broken_image"
        return BadRow(row, (problem,), str(item.get("query") or item.get("question")), name)
    return _build_example(name, row, item, part, found)


def _build_example(name: str, row: int, item: dict[str, Any], part: str, images: tuple[Any, ...]) -> Example | BadRow:
    question, answer = item.get("query") or item.get("question"), item.get("label", item.get("answer"))
    answer = answer[0] if isinstance(answer, list) and len(answer) == 1 else answer
    if not question or not isinstance(answer, str | int | float):
        return BadRow(row, ("unknown_schema",), f"question {question!r} with answer {answer!r}", name)
    return Example(name, str(question), images, None, str(answer), meta={"family": part, "row": row})
