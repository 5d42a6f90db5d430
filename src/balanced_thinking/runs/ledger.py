"""A study's ledger: one row for each finished part of a run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from balanced_thinking.runs.files import read_json_lines
from balanced_thinking.runs.paths import StudyFiles
from balanced_thinking.runs.records import LedgerEntry, RecordError, read_record, record_values
from balanced_thinking.system.locks import hold_file
from balanced_thinking.system.memory import peak_mib, reset_peak
from balanced_thinking.system.process import utc_now


@contextmanager
def append_ledger_entry(root: Path, run: str, part: str) -> Iterator[dict[str, Any]]:
    """Append a row once the part is complete. The caller adds fields of `LedgerEntry` to the dictionary it gets: the
    device, and the seconds of all tries. GPU seconds are the wall seconds of a part on a GPU."""
    started = utc_now()
    found: dict[str, Any] = {}
    reset_peak()
    yield found
    device = found["device"]
    entry = LedgerEntry(
        run=run,
        part=part,
        started=started,
        gpu_seconds=None if device == "cpu" else found["wall_seconds"],
        peak_mib=peak_mib(device),
        **found,
    )
    write_ledger_entry(root, entry)


def write_ledger_entry(root: Path, entry: LedgerEntry) -> None:
    """Append a row. It begins a line of its own, also after a row that a full disk has cut short.

    One process writes at a time: two machines that append to a file of a network file system overwrite each other.
    """
    row = json.dumps(record_values(entry, keep_empty=False)) + "\n"
    path = StudyFiles(root).ledger
    with hold_file(path, "writing a row", wait=True), path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        file.write((b"" if file.read(1) in (b"", b"\n") else b"\n") + row.encode())


def read_ledger(root: Path, notes: list[str]) -> list[LedgerEntry]:
    """The finished parts of a study's runs; empty where the folder has no ledger. Rows that cannot be read, such as one
    that a kill cut short, are counted in `notes`."""
    path, entries, unusable = StudyFiles(root).ledger, [], 0
    for row in read_json_lines(path, notes, required=False):
        try:
            entries.append(read_record(LedgerEntry, row, str(path)))
        except RecordError:
            unusable += 1
    if unusable:
        notes.append(f"{path.name}: {unusable} rows lack a run or a part, or have values of another type")
    return entries
