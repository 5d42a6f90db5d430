"""PuzzleVQA (declare-lab/LLM-PuzzleTest, MIT): 20 families of abstract visual puzzles, 50 items each.

The folder is as published: `<family>.json` (JSON Lines) and `images/<family>/`. The reasoning is caption, explanation
and deduction, one after the other. Options keep their published order; the question lists them with letters, the answer
is an option's text.

Splits are ours, there is no published one: `train` about 80, `validation` 10 and `test` 10 %, or `all`, by a hash of
the picture's file. Only 867 of the 1,000 pictures differ: a hash of the ids would put one puzzle into train and test.

The hub's table (declare-lab/PuzzleVQA), a single split there, is split in the same way.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from balanced_thinking.config.names import did_you_mean
from balanced_thinking.data.bad_rows import BadRow
from balanced_thinking.data.example import Example
from balanced_thinking.data.records import read_records
from balanced_thinking.data.splits import belongs_to_split, check_split
from balanced_thinking.data.tables import is_table, open_cell_images, stream_table

HUB = ("declare-lab/PuzzleVQA",)
SALT = b"puzzlevqa/"
FIELDS = ("image", "question", "options", "answer", "caption", "explanation", "deduction")


def recognises(path: Path) -> bool:
    """Whether it is a folder with `<family>.json` beside `images/<family>/`, and puzzles in it."""
    files = _families(path) if path.is_dir() else {}
    _, first = next(read_records(next(iter(files.values()))), (0, None)) if files else (0, None)
    return isinstance(first, dict) and set(FIELDS) <= first.keys()


def _families(folder: Path) -> dict[str, Path]:
    files = sorted(folder.glob("*.json"))
    return {file.stem: file for file in files if (folder / "images" / file.stem).is_dir()}


def load(
    path: str | Path, *, split: str = "train", families: str | Sequence[str] | None = None
) -> Iterator[Example | BadRow]:
    """One `Example` or `BadRow` for each row of the split, of these families or all of them.

    Raises ValueError for a folder without puzzles and for unknown splits and families.
    """
    check_split(split, "PuzzleVQA")
    if is_table(path):
        wanted, met = [families] if isinstance(families, str) else families, set()
        for row, cells in stream_table(path, "train"):
            item = _from_table(row, cells)
            met.add(cells.get("category"))
            if isinstance(item, BadRow) or (
                belongs_to_split(item, split, SALT) and (not wanted or item.meta["family"] in wanted)
            ):
                yield item
        if unknown := set(wanted or ()) - met:
            raise ValueError(f"{path} has no family {min(unknown)!r}; known: {', '.join(sorted(map(str, met)))}")
        return
    folder = Path(path).expanduser()
    files = _families(folder)
    if not files:
        raise ValueError(f"{folder} holds no PuzzleVQA: expected <family>.json beside images/<family>/")
    chosen = [families] if isinstance(families, str) else list(families or files)
    for family in chosen:
        if family not in files:
            raise ValueError(
                f"{folder} has no family {family!r}{did_you_mean(family, files)}; known: {', '.join(files)}"
            )
    for family in chosen:
        for row, record in read_records(files[family]):
            item = record if isinstance(record, BadRow) else _from_file(folder, family, row, record)
            if isinstance(item, BadRow) or belongs_to_split(item, split, SALT):
                yield item


def _from_file(folder: Path, family: str, row: int, record: dict[str, Any]) -> Example | BadRow:
    return _example(f"{family}-{row - 1:04d}", family, row, record, (folder / str(record.get("image")),))


def _from_table(row: int, cells: dict[str, Any]) -> Example | BadRow:
    identity, found = f"row-{row:05d}", open_cell_images(cells.get("image"))
    if found is None:
        return BadRow(row, ("broken_image",), str(cells.get("question")), identity)
    options = cells.get("options")
    if isinstance(options, str):  # a list as Python writes it
        try:
            options = ast.literal_eval(options)
        except (ValueError, SyntaxError):
            return BadRow(row, ("unknown_schema",), f"options {options!r} are no list", identity)
    return _example(identity, str(cells.get("category")), row, cells | {"options": options}, found)


def _example(identity: str, family: str, row: int, record: dict[str, Any], images: tuple[Any, ...]) -> Example | BadRow:
    missing = [key for key in FIELDS if record.get(key) in (None, "", [])]
    if missing or not isinstance(record["options"], list):
        text = f"without {', '.join(missing)}" if missing else f"options {record['options']!r} are no list"
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
