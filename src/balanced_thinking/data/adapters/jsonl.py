r"""Your own data: files, folders and names on the hub (`sources`). Each row may have any of these schemas (`schemas`):

- ours: `question`, `answer`, and optionally `think` (or `reasoning`), `choices`, `image` or `images`;
- TRL's `prompt` (or `question`) + `completion`, each a string or messages, whose content is a string or parts;
- `messages` (`role`, `content`) or `conversations` (`from`, `value`): TRL's, and both files of Vision-R1-cold.

Columns of other tools are read under our names (`known_columns`), and any others by the option `columns` (`renaming`).
Completions are read by the parser that training uses; `meta["read_as"]` is their format. Pictures stay where `<image>`
is. System texts and earlier turns are part of the prompt. Several answers are one to train on and `alternatives`.
Every other key of a row goes to `meta`. A row without `id` is named after its file and line. A row's `choices` are used
for scoring only, so the question itself should list them, or the option `list_choices` does.

Splits: those of a folder's files, or of the hub (`sources`). In a file, rows with a `split` key belong to that split,
rows without one to every split (`assert_no_overlap` finds what this mixes up). `split="all"` reads every row.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Unpack

from balanced_thinking.data.bad_rows import BadRow, DataError
from balanced_thinking.data.example import Example
from balanced_thinking.data.reading import RecordPlace, RowOptions, RowSettings, read_rows
from balanced_thinking.data.renaming import check_columns, read_columns
from balanced_thinking.data.sources import Source, has_known_form, open_source
from balanced_thinking.data.split_names import belongs_to_split, normalize_split
from balanced_thinking.system.files import expand_home

logger = logging.getLogger(__name__)


def recognises(path: Path) -> bool:
    """Whether it is a file or a folder in one of the forms of `sources`."""
    return has_known_form(path)


def load(
    path: str | Path,
    *,
    split: str = "train",
    subset: str | None = None,
    columns: Mapping[str, Any] | None = None,
    image_root: str | Path | None = None,
    **settings: Unpack[RowSettings],
) -> Iterator[Example | BadRow]:
    """Yield one `Example` or `BadRow` per row of the split.

    Args:
        subset: which configuration of a data set on the hub.
        columns: our name -> the name of the column that holds it (`renaming`).
        image_root: the folder at which relative image paths start; default: the file's folder.
        settings: how rows are read; see `RowOptions`.

    Raises:
        DataError: the path cannot be read, or has no row of this split.
    """
    check_columns(columns)
    root = None if image_root is None else expand_home(image_root)
    return _read_split(path, split, subset, columns, root, RowOptions(**settings))


def _read_split(
    path: str | Path,
    split: str,
    subset: str | None,
    columns: Mapping[str, Any] | None,
    image_root: Path | None,
    options: RowOptions,
) -> Iterator[Example | BadRow]:
    source = open_source(path, split, subset)
    yield from read_rows(_records_of_split(source, split, columns, image_root), options)


def _records_of_split(
    source: Source, split: str, columns: Mapping[str, Any] | None, image_root: Path | None
) -> Iterator[tuple[RecordPlace, dict[str, Any] | BadRow]]:
    other_splits: Counter[str] = Counter()
    empty = True
    for row, record, stem, folder in read_columns(source, columns):
        if source.by_row and isinstance(record, dict) and not belongs_to_split(record.get("split"), split):
            other_splits[str(record["split"]).strip()] += 1
            continue
        empty = False
        yield RecordPlace(row, stem, folder if image_root is None else image_root), record
    if empty and other_splits:
        known = ", ".join(sorted(other_splits))
        raise DataError(f"{source.where} has no row of split {split!r}; choose a split that it has: {known}")
    meant = normalize_split(split)
    if alike := {name: count for name, count in other_splits.items() if normalize_split(name) == meant}:
        named = ", ".join(f"{name!r} {count}" for name, count in alike.items())
        logger.warning("%s: rows of split %s are not read as %r; write one name for them", source.where, named, split)
