"""Rows for the tests of the reader: a folder with two pictures, and rows written to a file and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from balanced_thinking.data.bad_rows import BadRow
from balanced_thinking.data.example import Example
from balanced_thinking.data.load import load_data

SAID = "<think>It has a mane.</think><answer>horse</answer>"


def make_pictures(folder: Path) -> None:
    for name, color in (("one.png", "red"), ("two.png", "blue")):
        Image.new("RGB", (6, 6), color).save(folder / name)


def read_all(folder: Path, *rows: Any, **options: Any) -> list[Example | BadRow]:
    """The examples, then the bad rows, of a JSON Lines file with these rows."""
    file = folder / "rows.jsonl"
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    loaded = load_data(str(file), on_bad_row="drop", verify_images=True, options=options)
    return [*loaded.examples, *loaded.bad_rows]


def read_one(folder: Path, row: Any, **options: Any) -> Example | BadRow:
    (found,) = read_all(folder, row, **options)
    return found


def asks(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": text, **more}


def says(text: Any = SAID, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}
