r"""JSON Lines, JSON arrays and CSV. Each row may have any of these schemas (`schemas`):

- ours: `question`, `answer`, and optionally `think` (or `reasoning`), `choices`, `image` or `images`;
- TRL's `prompt` (or `question`) + `completion`, each a string or messages, whose content is a string or parts;
- `messages` (`role`, `content`) or `conversations` (`from`, `value`): TRL's, and both files of Vision-R1-cold.

Completions are read by the parser that training uses; `meta["read_as"]` is their format. `<image>` placeholders are
counted and removed. System turns are left out. Every other key of a row goes to `meta`. A row without `id` is named
after its file and line. A row's `choices` are used for scoring only, so the question itself should list them.

A CSV file begins with its column names, such as `image,question,reasoning,answer` (`read_records`).

Splits: a folder has `<split>.jsonl`, `.json` or `.csv`. In a file, rows with a `split` key belong to that split, rows
without one to every split (`assert_no_overlap` finds what this mixes up). `split="all"` reads every row of a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from balanced_thinking.data.bad_rows import BadRow, DataError
from balanced_thinking.data.example import Example
from balanced_thinking.data.records import CLAIMED, read_records, refuse_unreadable_file
from balanced_thinking.data.schemas import PLACEHOLDER, RowProblemError, read_content, to_list, to_text

SUFFIXES = (".jsonl", ".json", ".csv")
_PLACEHOLDERS = re.compile(rf"[ \n]?(?:{PLACEHOLDER}[ \n]?)+")
_PICTURE_FILE = re.compile(r".+\.(?:png|jpe?g|webp|bmp|gif|tiff?)", re.IGNORECASE)
_REMOTE = re.compile(r"(?:https?|ftp|s3|gs|hf|data):", re.IGNORECASE)


def recognises(path: Path) -> bool:
    """Whether it is a file with one of our suffixes, or a folder with one for a usual split."""
    if path.is_file():
        return path.suffix.lower() in SUFFIXES
    return bool(find_split_files(path))


def find_split_files(folder: Path) -> list[Path]:
    """The files in a folder that are named after the usual splits."""
    named = (folder / f"{split}{suffix}" for split in ("train", "validation", "test") for suffix in SUFFIXES)
    return [file for file in named if file.is_file()]


def load(
    path: str | Path,
    *,
    split: str = "train",
    image_root: str | Path | None = None,
    format: str | Mapping[str, Any] = "auto",
) -> Iterator[Example | BadRow]:
    """Yield one `Example` or `BadRow` per row of the split.

    Args:
        image_root: the folder at which relative image paths start; default: the file's folder.
        format: reasoning format of the completions. `prose`: those without tags end in "the answer is ..." (`prose`).

    Raises:
        DataError: the file does not exist, or has no row of this split.
    """
    file = _find_split_file(Path(path).expanduser(), split)
    refuse_unreadable_file(file)
    root = Path(image_root).expanduser() if image_root is not None else file.parent
    other_splits: set[str] = set()
    empty = True
    for row, record in read_records(file):
        if isinstance(record, dict) and split not in ("all", record.get("split") or split):
            other_splits.add(str(record["split"]))
            continue
        empty = False
        yield record if isinstance(record, BadRow) else read_row(row, record, file.stem, root, format)
    if empty and other_splits:
        raise DataError(
            f"{file} has no row of split {split!r}; choose a split that it has: {', '.join(sorted(other_splits))}"
        )


def _find_split_file(path: Path, split: str) -> Path:
    if not path.is_dir():
        if not path.is_file():
            raise DataError(f"there is no file {path}; expected a .jsonl, .json or .csv file, or a folder of them")
        return path
    for suffix in SUFFIXES:
        if (file := path / f"{split}{suffix}").is_file():
            return file
    found = ", ".join(sorted(file.name for file in path.iterdir() if file.suffix in SUFFIXES))
    raise DataError(f"{path} has no {split}.jsonl, .json or .csv; it has {found or 'no file of these types'}")


def read_row(
    row: int, record: dict[str, Any], stem: str, root: Path, format: str | Mapping[str, Any] = "auto"
) -> Example | BadRow:
    """Read a row in any of the schemas. Without an id it is named `<stem>-<row>`."""
    identity = record.get("id")
    name = f"{stem}-{row:06d}" if identity is None else str(identity)
    try:
        content = read_content(record, format)
        others = {key: value for key, value in record.items() if key not in CLAIMED}
        meta = record.get("meta")
        if not content.images:
            _refuse_unread_pictures({**others, "meta": meta})
        read_as = {} if content.read_as is None else {"read_as": content.read_as}
        return Example(
            id=name,
            question=_remove_placeholders(content.question, len(content.images)),
            images=tuple(_resolve_image(image, root) for image in content.images),
            think=content.think,
            answer=content.answer,
            choices=tuple(to_text(choice, "choices") for choice in to_list(record.get("choices"))),
            meta={**others, **(meta if isinstance(meta, dict) else {}), **read_as, "row": row},
        )
    except RowProblemError as error:
        return BadRow(row, error.problems, error.text, None if identity is None else name)


def _refuse_unread_pictures(value: Any, name: str = "") -> None:
    """Raise RowProblemError for a picture's path under a key that is not read. Its question would lack the picture."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _refuse_unread_pictures(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for inner in value:
            _refuse_unread_pictures(inner, name)
    elif isinstance(value, str) and _PICTURE_FILE.fullmatch(value.partition("?")[0]):
        raise RowProblemError(f"{name}: {value}", "unread_image")


def _remove_placeholders(question: str, images: int) -> str:
    count = question.count(PLACEHOLDER)
    if count not in (0, images):
        raise RowProblemError(f"{count} placeholders, {images} images: {question}", "image_count")
    return _PLACEHOLDERS.sub(_space_in_place_of, question).strip()


def _space_in_place_of(removed: re.Match[str]) -> str:
    """What replaces a placeholder: the widest white space next to it, or a new line between two words."""
    before, after = removed.string[: removed.start()][-1:], removed.string[removed.end() :][:1]
    between_words = "\n" if before.isalnum() and after.isalnum() else ""
    return next((space for space in ("\n", " ") if space in removed[0]), between_words)


def _resolve_image(entry: Any, root: Path) -> Path:
    if isinstance(entry, dict):
        entry = entry.get("path")
    if not isinstance(entry, str) or not entry:
        raise RowProblemError(f"an image that is not a path: {entry!r}", "broken_image")
    if _REMOTE.match(entry):
        raise RowProblemError(entry, "remote_image")
    return root / entry.removeprefix("file://")
