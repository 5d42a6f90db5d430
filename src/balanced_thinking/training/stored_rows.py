"""Rows that were read, and what was found in them, kept so that a second start with the same data need not read again.

The store is a folder of the user's cache. An entry is named after everything that it follows from: the files of the
data and their times, the options, and the code that reads. Any number of processes may use the store; an entry appears
complete or not at all, and the whole folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.compute as pc
from datasets import Dataset

from balanced_thinking import __version__
from balanced_thinking.config.foreign_json import read_json_file
from balanced_thinking.data.bad_rows import BadRow
from balanced_thinking.data.registry import import_adapter, resolve_data
from balanced_thinking.system.files import cache_folder, expand_home, write_atomically
from balanced_thinking.training.preflight import Preflight

_MOST_FILES = 200_000  # of a folder of data: more take too long to look at
_LARGEST_BYTES = 2**30  # of one entry: larger rows, which hold their pictures, are read again
_ABANDONED_SECONDS = 24 * 3600.0  # no process writes one entry for so long
_KEPT_BYTES, _KEPT_ENTRIES = 4 * 2**30, 200  # of rows, and again of results


def fingerprint_files(sources: Iterable[str]) -> str | None:
    """Identifies the state of the files behind these data sets.

    None for one whose state cannot be known: it is not made of local files, nor generated from its options alone.
    """
    found: list[Any] = []
    for source in sources:
        name, path = resolve_data(source)
        if path is None and getattr(import_adapter(name), "GENERATED", False):
            found.append(source)
            continue
        if path is None or not expand_home(path).exists():
            return None
        place = expand_home(path).resolve()
        listed = sorted(_stamp_files(place, _MOST_FILES + 1)) if place.is_dir() else [_stamp_file(place)]
        if len(listed) > _MOST_FILES:
            return None
        found.append([source, listed])
    return digest_of(found)


def digest_of(*values: Any) -> str:
    """A name for a state that is described by JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def code_stamp() -> str:
    """Identifies the code of this package: rows that other code has read are not used."""
    root = Path(str(files("balanced_thinking")))
    return digest_of(__version__, sorted(_stamp_file(file) for file in root.rglob("*.py")))


def _stamp_file(file: Path) -> tuple[str, int, int]:
    status = file.stat()
    return str(file), status.st_size, status.st_mtime_ns


def _stamp_files(folder: Path, most: int) -> Iterator[tuple[str, int, int]]:
    for place, _, names in os.walk(folder):
        for name in names:
            if most <= 0:
                return
            most -= 1
            with suppress(OSError):  # a broken link, or a file that was just deleted
                yield _stamp_file(Path(place) / name)


class SplitRows(NamedTuple):
    """The good rows of a split, the number of each in the data, and the bad rows."""

    rows: Dataset
    numbers: list[int]
    bad_rows: tuple[BadRow, ...]


class StoredRows:
    """The rows of a run's splits under one name.

    Args:
        name: what `digest_of` makes of everything that the rows follow from.
    """

    def __init__(self, name: str) -> None:
        self.folder = cache_folder() / "rows" / name[:32]

    def load(self, splits: Sequence[str]) -> dict[str, SplitRows] | None:
        """The splits by name; None if they are not stored.

        Rows whose pictures have changed since then are not stored any more.
        """
        try:
            about = read_json_file(self.folder / "about.json")
            if sorted(about) != sorted(splits):
                return None
            found = {split: self._load_split(split, about[split]) for split in splits}
            os.utime(self.folder)  # its last use
        except (OSError, ValueError, KeyError, TypeError):
            return None
        complete = {split: rows for split, rows in found.items() if rows is not None}
        return complete if len(complete) == len(splits) else None

    def _load_split(self, split: str, about: Mapping[str, Any]) -> SplitRows | None:
        rows = Dataset.from_file(str(self.folder / f"{split}.arrow"))
        rows = rows.select_columns(about["columns"])
        if stamp_pictures(rows) != about["pictures"]:
            return None
        bad_rows = tuple(BadRow(**{**one, "problems": tuple(one["problems"])}) for one in about["bad_rows"])
        return SplitRows(rows, about["numbers"], bad_rows)

    def save(self, splits: Mapping[str, SplitRows]) -> None:
        """Store the splits, each of which must be one file of rows. What is too large is not stored."""
        written = {name: [Path(file["filename"]) for file in one.rows.cache_files] for name, one in splits.items()}
        if any(len(names) != 1 for names in written.values()):
            return
        if sum(file.stat().st_size for names in written.values() for file in names) > _LARGEST_BYTES:
            return
        with suppress(OSError):  # a full or read-only disk: the rows are read again next time
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(dir=self.folder.parent, suffix=".partial"))
            try:
                for name, (file,) in written.items():
                    _link_or_copy(file, partial / f"{name}.arrow")
                about = {
                    name: {
                        "columns": one.rows.column_names,
                        "numbers": one.numbers,
                        "bad_rows": [asdict(bad) for bad in one.bad_rows],
                        "pictures": stamp_pictures(one.rows),
                    }
                    for name, one in splits.items()
                }
                (partial / "about.json").write_text(json.dumps(about), encoding="utf-8")
                shutil.rmtree(self.folder, ignore_errors=True)
                partial.rename(self.folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
            _remove_oldest(self.folder.parent)


class StoredPreflight:
    """The result of a check under one name, as `StoredRows`."""

    def __init__(self, name: str) -> None:
        self.file = cache_folder() / "preflight" / f"{name[:32]}.json"

    def load(self) -> Preflight | None:
        try:
            found = Preflight.from_json(read_json_file(self.file))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        with suppress(OSError):
            os.utime(self.file)
        return found

    def save(self, found: Preflight) -> None:
        with suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.file, json.dumps(found.to_json()))
            _remove_oldest(self.file.parent)


def stamp_pictures(rows: Dataset) -> str:
    """Identifies the state of the picture files that rows name. Bytes in the rows cannot change."""
    if "images" not in rows.column_names:
        return ""
    digest = hashlib.sha256()
    for batch in rows.select_columns(["images"]).with_format("arrow").iter(10_000):
        for path in _picture_paths(batch["images"]):
            try:
                digest.update(repr(_stamp_file(Path(path))).encode())
            except (OSError, ValueError):  # no such file, or a name that no file can have
                digest.update(f"missing {path}".encode())
    return digest.hexdigest()


def _picture_paths(column: Any) -> Iterator[str]:
    """The paths in a column of lists of `{bytes, path}`, without reading the bytes."""
    for path in pc.struct_field(pc.list_flatten(column), "path").to_pylist():
        if path is not None:
            yield path


def _link_or_copy(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(file, target)


def _remove_oldest(folder: Path) -> None:
    """Keep the entries that were used last. What is half written belongs to another process, which a kill may end."""
    entries: list[Path] = []
    unfinished: list[Path] = []
    for entry in folder.iterdir():
        (unfinished if entry.name.endswith(".partial") else entries).append(entry)
    for entry in unfinished:
        if time.time() - entry.stat().st_mtime > _ABANDONED_SECONDS:
            _remove_entry(entry)
    kept = 0
    for place, entry in enumerate(sorted(entries, key=lambda one: one.stat().st_mtime, reverse=True)):
        kept += sum(file.stat().st_size for file in (entry.iterdir() if entry.is_dir() else (entry,)))
        if place >= _KEPT_ENTRIES or kept > _KEPT_BYTES:
            _remove_entry(entry)


def _remove_entry(entry: Path) -> None:
    if entry.is_dir():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)
