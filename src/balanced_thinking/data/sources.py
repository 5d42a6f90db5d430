"""Where rows come from: a file, a folder or a name on the hub -> records, whatever the form of the files.

| what | how it is known |
| --- | --- |
| JSON Lines, JSON, CSV, TSV | a file `.jsonl`, `.ndjson`, `.json` (the first and the last also `.gz`), `.csv`, `.tsv` |
| parquet, Arrow, WebDataset | a file `.parquet`, `.arrow`, `.tar`, `.tar.gz`, `.tgz` |
| `save_to_disk` | a folder with `dataset_dict.json`, or with `state.json` |
| one file for each split | a folder with `train.jsonl`, `test.parquet` and so on |
| the hub's layout | files or subfolders named after splits, such as `data/train-00000-of-00001.parquet` |
| imagefolder | a folder with `metadata.csv`, `.jsonl` or `.parquet` beside its pictures, or in its subfolders |
| the hub | `owner/name`, or a folder whose README.md has `configs` |

A folder without any split in its names is the split `train`, as on the hub.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from balanced_thinking.config.foreign_json import read_json_file
from balanced_thinking.config.names import did_you_mean
from balanced_thinking.data.bad_rows import BadRow, DataError
from balanced_thinking.data.folder_header import find_named_files
from balanced_thinking.data.records import csv_columns, read_records, refuse_unreadable_file
from balanced_thinking.data.split_names import SYNONYMS, USUAL_SPLITS
from balanced_thinking.data.tables import (
    is_hub_name,
    stream_saved_table,
    stream_table,
    stream_table_file,
    table_columns,
)
from balanced_thinking.data.unreadable import explain_unreadable, is_lfs_pointer
from balanced_thinking.data.values import is_null
from balanced_thinking.data.walking import walk_files
from balanced_thinking.system.files import expand_home

logger = logging.getLogger(__name__)
TEXT_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".ndjson", ".jsonl.gz", ".json.gz")
TABLE_SUFFIXES = (".parquet", ".arrow")
ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_DOUBLE_SUFFIXES = (".tar.gz", ".jsonl.gz", ".json.gz")
SUFFIXES = (*TEXT_SUFFIXES, *TABLE_SUFFIXES, *ARCHIVE_SUFFIXES)
_SHARD = re.compile(r"(.+?)-(\d{5})-of-(\d{5})(?:-\w+)?")
_WORDS = re.compile(r"[^\W\d_]+")
# JSON files that describe a data set or a repository and hold no rows.
_NO_ROWS = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json", "package.json"}
_METADATA = "metadata"  # the table of an imagefolder
_DEEPEST = 4  # subfolders in which files are looked for


class Row(NamedTuple):
    """A row: its position in its file, from 1; its values; what it is named after; where its picture paths start."""

    row: int
    record: dict[str, Any] | BadRow
    stem: str
    root: Path


class Source(NamedTuple):
    """The rows of a split. `columns` are those that the files declare, even where no row has a value; () if none do.

    by_row: rows belong to the split that their key `split` names, and those without one to every split.
    """

    where: str
    rows: Iterator[Row]
    columns: tuple[str, ...] = ()
    by_row: bool = False


def has_known_form(path: Path) -> bool:
    """Whether it is a file or a folder that `open_source` can read, by its names only."""
    if path.is_file():
        return file_suffix(path) in SUFFIXES
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file() or bool(_find_files(path))


def file_suffix(file: Path) -> str:
    """The suffix in lower case, `.tar.gz` and the like as one."""
    name = file.name.lower()
    return next((suffix for suffix in _DOUBLE_SUFFIXES if name.endswith(suffix)), Path(name).suffix)


def find_split_files(folder: Path) -> list[Path]:
    """The files in a folder that are named after the usual splits."""
    named = (folder / f"{split}{suffix}" for split in USUAL_SPLITS for suffix in SUFFIXES)
    return [file for file in named if file.is_file()]


def open_source(path: str | Path, split: str, subset: str | None = None) -> Source:
    """The rows of a split. Raises DataError for what cannot be read, for an unknown split and for an unknown subset."""
    if is_hub_name(path):
        return _open_hub(str(path), split, subset)
    place = expand_home(path)
    if place.is_file():
        return _open_file(place)
    if not place.is_dir():
        raise DataError(f"there is no file {place}; expected one of {', '.join(SUFFIXES)}, or a folder of them")
    return _open_folder(place, split, subset)


def stream_rows(path: str | Path, split: str, subset: str | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (position from 1, row) of a split of a published table. Raises DataError for what cannot be read."""
    for row in open_source(path, split, subset).rows:
        if isinstance(row.record, BadRow):
            raise DataError(f"{path}, row {row.row}: {row.record.text}")
        yield row.row, row.record


def _open_hub(name: str, split: str, subset: str | None) -> Source:
    rows = (Row(row, record, split, Path()) for row, record in stream_table(name, split, subset))
    return Source(name, rows)


def _open_file(file: Path) -> Source:
    """One file, of which `split` keys of its rows select."""
    suffix = file_suffix(file)
    if suffix not in SUFFIXES or is_lfs_pointer(file):
        raise DataError(explain_unreadable(file, SUFFIXES))
    columns = table_columns(file) if suffix == ".parquet" else csv_columns(file) if suffix in (".csv", ".tsv") else ()
    return Source(str(file), _read_file(file), columns, by_row=True)


def _read_file(file: Path) -> Iterator[Row]:
    suffix = file_suffix(file)
    records: Iterator[tuple[int, dict[str, Any] | BadRow]]
    if suffix in TABLE_SUFFIXES:
        records = iter(stream_table_file(file))
    elif suffix in ARCHIVE_SUFFIXES:
        from balanced_thinking.data.archives import stream_archive

        records = stream_archive(file)
    else:
        refuse_unreadable_file(file)
        records = read_records(file)
    stem = file.name[: -len(suffix)]
    return (Row(row, record, stem, file.parent) for row, record in records)


def _open_folder(folder: Path, split: str, subset: str | None) -> Source:
    if (folder / "dataset_dict.json").is_file():
        splits = _read_saved_splits(folder / "dataset_dict.json")
        if split not in splits:
            raise _missing_split_error(folder, split, splits)
        return _open_saved(folder / split, split)._replace(by_row=False)
    if (folder / "state.json").is_file() and any(folder.glob("*.arrow")):
        return _open_saved(folder, folder.name)
    if file := next((folder / f"{split}{end}" for end in SUFFIXES if (folder / f"{split}{end}").is_file()), None):
        _warn_of_unread(folder, split, [file])
        return _open_file(file)
    if (named := find_named_files(folder, split, subset)) is None:
        return _open_files(folder, split, _find_files(folder))
    if named.files is None:
        return _open_files(named.folder, split, _find_files(named.folder))
    if not (wanted := _keep_tables(named.files)):
        raise DataError(explain_unreadable(named.folder, SUFFIXES))
    return _join_files(folder, split, wanted)


def _read_saved_splits(file: Path) -> list[str]:
    found = read_json_file(file)
    splits = found.get("splits") if isinstance(found, dict) else None
    return [str(split) for split in splits] if isinstance(splits, list) else []


def _open_saved(folder: Path, stem: str) -> Source:
    rows = (Row(row, record, stem, folder) for row, record in stream_saved_table(folder))
    return Source(str(folder), rows, by_row=True)


def _open_files(folder: Path, split: str, files: list[Path]) -> Source:
    """The files of a split, one after another, whose names say which split they are of."""
    if not files:
        raise DataError(explain_unreadable(folder, SUFFIXES))
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(_split_of_file(file.relative_to(folder)) or "", []).append(file)
    named = {name: found for name, found in splits.items() if name}
    literal = [file for file in files if split in (*file.relative_to(folder).parts[:-1], file.stem)]
    wanted = literal or named.get(split) or named.get(SYNONYMS.get(split, split))
    by_picture = not named and files[0].stem == _METADATA  # one table of an imagefolder, for all splits
    if not wanted and (by_picture or split == "all" or (split == "train" and not named)):
        wanted = files
    if not wanted:
        raise _missing_split_error(folder, split, list(named) or ["train"])
    kept = _keep_top_level(folder, wanted)
    _refuse_missing_parts(kept)
    if named:
        _warn_of_unread(kept[0].parent, split, kept)
    return _join_files(folder, split, kept, by_picture=by_picture, by_row=not named)


def _join_files(
    folder: Path, split: str, wanted: list[Path], *, by_picture: bool = False, by_row: bool = False
) -> Source:
    """The files of a split, one after another."""
    if len({file_suffix(file) for file in wanted}) > 1:
        shown = ", ".join(str(file.relative_to(folder)) for file in wanted[:4])
        raise DataError(
            f"{folder} has rows in files of several kinds ({shown}); expected one kind: name a file of them"
        )
    sources = [_find_pictures(_open_file(file), folder) for file in wanted]
    columns = tuple(dict.fromkeys(name for source in sources for name in source.columns))
    rows = (_mark_split(row) if by_picture else row for source in sources for row in source.rows)
    return Source(f"{folder}, split {split}", rows, columns, by_row=by_row)


def _refuse_missing_parts(files: list[Path]) -> None:
    """Raises DataError where files are numbered parts `-00000-of-00003` of a table, and one is not there."""
    parts: dict[tuple[Path, str, int], set[int]] = {}
    for file in files:
        if found := _SHARD.fullmatch(file.name[: -len(file_suffix(file))]):
            parts.setdefault((file.parent, found[1], int(found[3])), set()).add(int(found[2]))
    for (parent, name, count), present in parts.items():
        first = min(present) if len(present) == count else 0  # some count from 1
        if missing := sorted({*range(first, first + count)} - present):
            raise DataError(
                f"{parent} has {len(present)} of the {count} parts of {name}; missing: "
                f"{name}-{missing[0]:05d}-of-{count:05d}. Get all of them, or name a file to read it alone"
            )


def _warn_of_unread(folder: Path, split: str, read: Iterable[Path]) -> None:
    """Warn of the files with rows beside those that are read, unless their names say that they are of another split."""
    beside = (file for file in sorted(folder.iterdir()) if file_suffix(file) in SUFFIXES and file.is_file())
    known = {split, SYNONYMS.get(split, split), None}
    left = {*beside} - {*read}
    left = {one for one in left if one.name not in _NO_ROWS and _split_of_file(Path(one.name)) in known}
    if left:
        logger.warning("%s: other files with rows are not read (%d, such as %s)", folder, len(left), min(left).name)


def _keep_top_level(folder: Path, files: list[Path]) -> list[Path]:
    """The files of the highest folder; those below it are often of something else, such as one for each picture."""
    level = min(len(file.parts) for file in files)
    kept = [file for file in files if len(file.parts) == level]
    if below := [file for file in files if len(file.parts) > level]:
        shown = below[0].relative_to(folder)
        logger.warning("%s: %d files in subfolders are not read (%s): name their folder", folder, len(below), shown)
    return kept


def _find_pictures(source: Source, folder: Path) -> Source:
    """The source with its picture paths starting at `folder`, if the first of them is there and not beside its file."""
    first = next(source.rows, None)
    rows = source.rows if first is None else chain([first], source.rows)
    if first is not None and isinstance(first.record, dict):
        entry = first.record.get("images") or first.record.get("image")
        entry = entry[0] if isinstance(entry, list) else entry
        name = entry.get("path") if isinstance(entry, dict) else entry
        if isinstance(name, str) and not (first.root / name).is_file() and (folder / name).is_file():
            rows = (row._replace(root=folder) for row in rows)
    return source._replace(rows=iter(rows))


def _mark_split(row: Row) -> Row:
    """The split of a row is that of its picture's folder, or `train`, as on the hub."""
    if isinstance(row.record, BadRow) or not is_null(row.record.get("split")):
        return row
    split = _split_of_file(Path(str(row.record.get("file_name") or "")).parent / _METADATA)
    return row._replace(record=row.record | {"split": split or "train"})


def _find_files(folder: Path) -> list[Path]:
    """The files with rows in a folder and below, sorted."""
    return _keep_tables(walk_files(folder, _DEEPEST))


def _keep_tables(files: Iterable[Path]) -> list[Path]:
    """Those with rows, sorted. The tables of an imagefolder come before all others."""
    found = sorted(
        file for file in files if file_suffix(file) in SUFFIXES and file.name not in _NO_ROWS and file.is_file()
    )
    metadata = [file for file in found if file.stem == _METADATA]
    return metadata or found


def _split_of_file(file: Path) -> str | None:
    """The split that a file's name says, else the nearest of its folders' names; None if none says one."""
    for part in (file.name[: -len(file_suffix(file))], *reversed(file.parts[:-1])):
        if shard := _SHARD.fullmatch(part):
            return shard[1]
        for word in (word.lower() for word in _WORDS.findall(part)):
            if word in USUAL_SPLITS or word in SYNONYMS:
                return SYNONYMS.get(word, word)
    return None


def _missing_split_error(folder: Path, split: str, splits: list[str]) -> DataError:
    known = ", ".join(splits) or "none"
    return DataError(f"{folder} has no split {split!r}{did_you_mean(split, splits)}; it has {known}")
