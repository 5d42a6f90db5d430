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

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

from balanced_thinking.data.bad_rows import BadRow, DataError
from balanced_thinking.data.example import Example
from balanced_thinking.data.reading import RecordPlace, RowOptions, RowSettings, read_rows
from balanced_thinking.data.records import read_records, refuse_unreadable_file

SUFFIXES = (".jsonl", ".json", ".csv")


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
    **settings: Unpack[RowSettings],
) -> Iterator[Example | BadRow]:
    """Yield one `Example` or `BadRow` per row of the split.

    Args:
        image_root: the folder at which relative image paths start; default: the file's folder.
        settings: how rows are read; see `RowOptions`.

    Raises:
        DataError: the file does not exist, or has no row of this split.
    """
    file = _find_split_file(Path(path).expanduser(), split)
    refuse_unreadable_file(file)
    root = Path(image_root).expanduser() if image_root is not None else file.parent
    options = RowOptions(**settings)
    other_splits: set[str] = set()
    empty = True

    def records_of_split() -> Iterator[tuple[RecordPlace, dict[str, Any] | BadRow]]:
        nonlocal empty
        for row, record in read_records(file):
            if isinstance(record, dict) and split not in ("all", record.get("split") or split):
                other_splits.add(str(record["split"]))
                continue
            empty = False
            yield RecordPlace(row, file.stem, root), record

    yield from read_rows(records_of_split(), options)
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
