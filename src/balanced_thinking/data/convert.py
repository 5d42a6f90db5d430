"""Any data set as our own JSON Lines, pictures that are no files yet beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from balanced_thinking import runs
from balanced_thinking.data.example import Example
from balanced_thinking.segments import render


def write_jsonl(examples: Iterable[Example], path: Path, *, format: str | None = None) -> int:
    """Write one row an example, and return how many.

    Args:
        format: write `prompt` and `completion`, with reasoning and answer in this format, where there is reasoning;
            None: write `question`, `think` and `answer` apart, which any format can be made of.

    Paths of pictures are written relative to the file where they lie below its folder, else absolute.
    """
    if path.suffix != ".jsonl":
        raise ValueError(f"the file to write is {path}; expected one that ends in .jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    index = -1
    with runs.written_atomically(path) as file:
        for index, example in enumerate(examples):
            row = _row(example, format, path, index)
            file.write(json.dumps({k: v for k, v in row.items() if v not in (None, [], {})}, ensure_ascii=False) + "\n")
    return index + 1


def _row(example: Example, format: str | None, path: Path, index: int) -> dict[str, Any]:
    row: dict[str, Any] = {"id": example.id}
    if format is None or not example.think:
        row |= {"question": example.question, "think": example.think, "answer": example.answer}
    else:
        row |= {"prompt": example.question, "completion": render(example.think, example.answer, format)}
    folder = path.parent.resolve()
    pictures = [_place(image, folder, path.stem, index, k) for k, image in enumerate(example.images)]
    meta = {name: value for name, value in example.meta.items() if name != "row"}
    return row | {"images": pictures, "choices": list(example.choices), "meta": meta}


def _place(image: Any, folder: Path, stem: str, index: int, k: int) -> str:
    if isinstance(image, Path):
        whole = image.expanduser().resolve()
        return str(whole.relative_to(folder)) if whole.is_relative_to(folder) else str(whole)
    name = Path(f"{stem}-images") / f"{index:06d}-{k}.png"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    image.save(folder / name)
    return str(name)
