"""Write any data set as our own JSON Lines. Pictures that are not files are written to a folder next to it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from balanced_thinking.config.errors import FileInTheWayError, RecipeError
from balanced_thinking.data.bad_rows import DataError
from balanced_thinking.data.checks import find_written_problems
from balanced_thinking.data.example import Example, Turn
from balanced_thinking.data.images import open_image
from balanced_thinking.data.places import write_placeholders
from balanced_thinking.data.rows import pictures_are_moved, turns_with_places
from balanced_thinking.segments import get_format, parse, render
from balanced_thinking.system.files import expand_home, open_atomically, partial_path
from balanced_thinking.system.locks import hold_file

_SUFFIXES = {"MPO": "jpeg"}  # of a format whose name is not one
_OUR_PICTURE = re.compile(r"\d{6,}-\d+\.\w+")  # as `_build_row` names them


def write_jsonl(examples: Iterable[Example], path: Path, *, format: str | None = None) -> int:
    """Write one row per example; return their number.

    Args:
        format: write rows with reasoning as `prompt` and `completion` in this format, except those that would not be
            read back from it. None: write `question`, `think` and `answer` separately, from which any format can be
            made.

    Picture paths are relative if the picture is in the file's folder or below, else absolute.
    Raises DataError, and writes nothing, for a path that does not end in .jsonl or if there is no example, and
    FolderBusyError where another process writes this file.
    """
    if path.suffix != ".jsonl":
        raise RecipeError(f"the file to write is {path}; expected a name that ends in .jsonl")
    with hold_file(path, "writing"):
        return _write_alone(examples, path, format)


def _write_alone(examples: Iterable[Example], path: Path, format: str | None) -> int:
    """`write_jsonl` by the only process that writes this file and its pictures."""
    index, partial_folder = -1, partial_path(_final_pictures_folder(path))
    try:
        with open_atomically(path) as file:
            for index, example in enumerate(examples):
                row = _build_row(example, format, path, index, partial_folder)
                kept = {k: v for k, v in row.items() if v not in (None, [], {})}
                file.write(json.dumps(kept, ensure_ascii=False, default=str) + "\n")
                if partial_folder.is_dir():
                    _refuse_named_pictures(example, path)
            if index < 0:
                raise DataError(
                    "there is no row to write; expected at least one: check the data and --split, and whether "
                    "--on-bad-row or --without left out all rows"
                )
            if partial_folder.is_dir():  # all rows are written: now their pictures replace those of an older file
                _publish_pictures(partial_folder, path)
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)
    return index + 1


def _refuse_named_pictures(example: Example, path: Path) -> None:
    """Raises FileInTheWayError where a row goes on naming a picture in the folder whose pictures are replaced."""
    folder = _final_pictures_folder(path)
    named = [
        image for image in example.images if isinstance(image, Path) and folder.resolve() in image.resolve().parents
    ]
    if named:
        raise FileInTheWayError(
            f"row {example.id!r} names {named[0]}, but the pictures in {folder} would be replaced; choose another --out"
        )


def _publish_pictures(partial_folder: Path, path: Path) -> None:
    """Put the pictures in their place. Of what is there, only those that an older file of this name had are removed.

    Raises FileInTheWayError where the folder is there without such a file: it belongs to somebody else.
    """
    folder = _final_pictures_folder(path)
    if folder.exists() and any(folder.iterdir()) and not path.exists():
        raise FileInTheWayError(
            f"{folder} is there already, but {path.name}, to which it would belong, is not; move it, or choose another "
            "--out"
        )
    folder.mkdir(exist_ok=True)
    written = {picture.name for picture in partial_folder.iterdir()}
    for name in written:
        os.replace(partial_folder / name, folder / name)
    for picture in folder.iterdir():
        if picture.name not in written and _OUR_PICTURE.fullmatch(picture.name):
            picture.unlink()


def _final_pictures_folder(path: Path) -> Path:
    return path.with_name(f"{path.stem}-images")


def _build_row(example: Example, format: str | None, path: Path, index: int, partial_folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"id": example.id, "system": example.system}
    *earlier, question = _write_turns(example)
    row |= {"history": [{"role": turn.role, "content": turn.text} for turn in earlier]}
    if format is not None and (completion := _write_completion(example, format)) is not None:
        row |= {"prompt": question.text, "completion": completion}
    else:
        row |= {"question": question.text, "think": example.think, "answer": example.answer}
    pictures = [
        _store_picture(image, path, partial_folder, f"{index:06d}-{k}") for k, image in enumerate(example.images)
    ]
    meta = {name: value for name, value in example.meta.items() if name not in ("row", "read_as")}
    others = {"choices": list(example.choices), "alternatives": list(example.alternatives)}
    return row | {"images": pictures, **others, "meta": meta}


def _write_completion(example: Example, format: str) -> str | None:
    """None without reasoning, and where this format or "auto" would not read it back, because of tags in its texts."""
    if not example.think or find_written_problems(example, get_format(format)):
        return None
    completion = render(example.think, example.answer, format)
    own, found = parse(completion, format), parse(completion, "auto")
    return completion if not found.problems and (found.think, found.answer) == (own.think, own.answer) else None


def _write_turns(example: Example) -> list[Turn]:
    """The earlier turns and the question, with placeholders unless all pictures are before the first text."""
    turns = turns_with_places(example)
    if not pictures_are_moved(turns):
        return turns
    written = (write_placeholders(turn.text, turn.image_places) for turn in turns)
    return [replace(turn, text=text) for turn, text in zip(turns, written, strict=True)]


def _store_picture(image: Any, path: Path, partial_folder: Path, name: str) -> str:
    """The picture's path for its row. A picture that is not a file is written to the folder `partial_folder`."""
    if isinstance(image, Path):
        folder, file = path.parent.resolve(), expand_home(image).resolve()
        return str(file.relative_to(folder)) if file.is_relative_to(folder) else str(file)
    partial_folder.mkdir(exist_ok=True)
    if (encoded := getattr(image, "encoded", None)) is not None:
        name = f"{name}.{_SUFFIXES.get(image.format, (image.format or 'png').lower())}"
        (partial_folder / name).write_bytes(encoded)
    else:
        name = f"{name}.png"
        open_image(image).save(partial_folder / name)  # its EXIF data would be lost
    return f"{_final_pictures_folder(path).name}/{name}"
