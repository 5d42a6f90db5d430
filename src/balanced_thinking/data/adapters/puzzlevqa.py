"""PuzzleVQA (declare-lab/LLM-PuzzleTest, MIT): 20 families of abstract visual puzzles, 50 items each.

The folder is as published: `<family>.json` (JSON Lines) and `images/<family>/`. The reasoning is caption, explanation
and deduction, in this order. The question lists the options with letters, in their published order. The answer is an
option's text.

There are no published splits. Ours are `train` (about 80 %), `validation` (10 %), `test` (10 %) and `all`, by a hash of
the picture's file. Only 867 of the 1,000 pictures differ: a hash of the ids would put one puzzle into train and test.

The hub's table (declare-lab/PuzzleVQA) has a single split and is split in the same way.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from balanced_thinking.data.bad_rows import BadRow, DataError
from balanced_thinking.data.example import Example
from balanced_thinking.data.options import check_known_name
from balanced_thinking.data.records import read_records
from balanced_thinking.data.sources import stream_rows
from balanced_thinking.data.splits import belongs_to_split, check_split
from balanced_thinking.data.tables import is_hub_or_parquet, open_cell_images
from balanced_thinking.system.files import expand_home

HUB = ("declare-lab/PuzzleVQA",)
SALT = b"puzzlevqa/"
FIELDS = ("image", "question", "options", "answer", "caption", "explanation", "deduction")


def recognises(path: Path) -> bool:
    """Whether it is a folder with `<family>.json`, `images/<family>/`, and puzzles in the file."""
    files = _find_family_files(path) if path.is_dir() else {}
    _, first = next(read_records(next(iter(files.values()))), (0, None)) if files else (0, None)
    return isinstance(first, dict) and set(FIELDS) <= first.keys()


def _find_family_files(folder: Path) -> dict[str, Path]:
    files = sorted(folder.glob("*.json"))
    return {file.stem: file for file in files if (folder / "images" / file.stem).is_dir()}


def load(
    path: str | Path, *, split: str = "train", families: str | Sequence[str] | None = None
) -> Iterator[Example | BadRow]:
    """Yield one `Example` or `BadRow` per row of the split, of these families or of all.

    Raises DataError for a folder without puzzles and for an unknown split or family.
    """
    check_split(split, "PuzzleVQA")
    chosen = [families] if isinstance(families, str) else list(families or ())
    if is_hub_or_parquet(path):
        yield from _load_table(path, split, chosen)
    else:
        yield from _load_folder(expand_home(path), split, chosen)


def _load_table(path: str | Path, split: str, chosen: Sequence[str]) -> Iterator[Example | BadRow]:
    found = set()
    for row, cells in stream_rows(path, "train"):
        item = _read_table_row(row, cells)
        found.add(str(cells.get("category")))
        if isinstance(item, BadRow) or (
            belongs_to_split(item, split, SALT) and (not chosen or item.meta["family"] in chosen)
        ):
            yield item
    for family in chosen:  # a table's families are known only after its last row
        check_known_name(str(path), "family", family, sorted(found))


def _load_folder(folder: Path, split: str, chosen: Sequence[str]) -> Iterator[Example | BadRow]:
    files = _find_family_files(folder)
    if not files:
        raise DataError(f"{folder} is not PuzzleVQA: expected <family>.json and images/<family>/ in it")
    for family in chosen:
        check_known_name(str(folder), "family", family, files)
    for family in chosen or files:
        for row, record in read_records(files[family]):
            item = record if isinstance(record, BadRow) else _read_file_row(folder, family, row, record)
            if isinstance(item, BadRow) or belongs_to_split(item, split, SALT):
                yield item


def _read_file_row(folder: Path, family: str, row: int, record: dict[str, Any]) -> Example | BadRow:
    return _build_example(f"{family}-{row - 1:04d}", family, row, record, (folder / str(record.get("image")),))


def _read_table_row(row: int, cells: dict[str, Any]) -> Example | BadRow:
    identity, found = f"row-{row:05d}", open_cell_images(cells.get("image"))
    if found is None:
        return BadRow(row, ("broken_image",), str(cells.get("question")), identity)
    options = cells.get("options")
    if isinstance(options, str):  # a list as Python writes it
        try:
            options = ast.literal_eval(options)
        except (ValueError, SyntaxError):
            return BadRow(row, ("unknown_schema",), f"options {options!r} are not a list", identity)
    return _build_example(identity, str(cells.get("category")), row, cells | {"options": options}, found)


def _build_example(
    identity: str, family: str, row: int, record: dict[str, Any], images: tuple[Any, ...]
) -> Example | BadRow:
    missing = [key for key in FIELDS if record.get(key) in (None, "", [])]
    if missing or not isinstance(record["options"], list):
        text = f"without {', '.join(missing)}" if missing else f"options {record['options']!r} are not a list"
        return BadRow(row, ("unknown_schema",), text, identity)
    choices = tuple(str(option) for option in record["options"])
    listed = " ".join(f"({chr(ord('A') + i)}) {choice}" for i, choice in enumerate(choices))
    return Example(
        id=identity,
        question=f"{record['question']}\nOptions: {listed}",
        images=images,
        think=" ".join(str(record[key]).strip() for key in ("caption", "explanation", "deduction")),
        answer=str(record["answer"]),
        choices=choices,
        meta={"family": family, "row": row},
    )
