"""Any data set as our own JSON Lines, pictures that are no files yet beside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from balanced_thinking.data.example import Example
from balanced_thinking.segments import render
from balanced_thinking.system.files import written_atomically

_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I")


def write_jsonl(examples: Iterable[Example], path: Path, *, format: str | None = None) -> int:
    """Write one row an example, and return how many.

    Args:
        format: write `prompt` and `completion`, with reasoning and answer in this format, where there is reasoning;
            None: write `question`, `think` and `answer` apart, which any format can be made of.

    Paths of pictures are written relative to the file where they lie below its folder, else absolute.
    Raises ValueError for another kind of file, and where there is no example: nothing is written then.
    """
    if path.suffix != ".jsonl":
        raise ValueError(f"the file to write is {path}; expected one that ends in .jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    index, made = -1, path.parent / f".{path.stem}-images.partial"
    shutil.rmtree(made, ignore_errors=True)
    try:
        with written_atomically(path) as file:
            for index, example in enumerate(examples):
                row = _build_row(example, format, path, index, made)
                kept = {k: v for k, v in row.items() if v not in (None, [], {})}
                file.write(json.dumps(kept, ensure_ascii=False) + "\n")
            if index < 0:
                raise ValueError("there is no row to write; look at the data, its split and --on-bad-row")
            if made.is_dir():  # the rows are whole: now their pictures may take the place of older ones
                shutil.rmtree(_pictures_folder(path), ignore_errors=True)
                made.rename(_pictures_folder(path))
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return index + 1


def _pictures_folder(path: Path) -> Path:
    return path.with_name(f"{path.stem}-images")


def _build_row(example: Example, format: str | None, path: Path, index: int, made: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"id": example.id}
    if format is None or not example.think:
        row |= {"question": example.question, "think": example.think, "answer": example.answer}
    else:
        row |= {"prompt": example.question, "completion": render(example.think, example.answer, format)}
    pictures = [_store_picture(image, path, made, f"{index:06d}-{k}") for k, image in enumerate(example.images)]
    meta = {name: value for name, value in example.meta.items() if name not in ("row", "read_as")}
    return row | {"images": pictures, "choices": list(example.choices), "meta": meta}


def _store_picture(image: Any, path: Path, made: Path, name: str) -> str:
    """The path of a picture in its row; one that is no file yet is written to `made`."""
    if isinstance(image, Path):
        folder, whole = path.parent.resolve(), image.expanduser().resolve()
        return str(whole.relative_to(folder)) if whole.is_relative_to(folder) else str(whole)
    made.mkdir(exist_ok=True)
    if (encoded := getattr(image, "encoded", None)) is not None:
        name = f"{name}.{(image.format or 'png').lower()}"
        (made / name).write_bytes(encoded)
    else:
        name = f"{name}.png"
        (image if image.mode in _PNG_MODES else image.convert("RGB")).save(made / name)
    return f"{_pictures_folder(path).name}/{name}"
