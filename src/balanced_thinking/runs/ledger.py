"""A study's ledger: one row for each finished part of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from balanced_thinking.runs.files import read_lines
from balanced_thinking.system.memory import peak_mib, reset_peak
from balanced_thinking.system.process import utc_now

LEDGER = "ledger.jsonl"


@contextmanager
def ledger_entry(root: Path, run: str, part: str) -> Iterator[dict[str, Any]]:
    """A row of the ledger, written when the part is complete. Whoever does the part says on which device and what it
    took, all tries of it; GPU seconds are the wall seconds of a part on a GPU."""
    entry: dict[str, Any] = {"run": run, "part": part, "started": utc_now()}
    reset_peak()
    yield entry
    if entry["device"] != "cpu":
        entry["gpu_seconds"] = entry["wall_seconds"]
    entry["peak_mib"] = peak_mib(entry["device"])
    with (root / LEDGER).open("a", encoding="utf-8") as file:  # one short write: rows of several processes never mix
        file.write(json.dumps(entry) + "\n")


def read_ledger(root: Path) -> list[dict[str, Any]]:
    """Every finished part of every run; a row that a kill cut short is left out."""
    path = root / LEDGER
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def load_ledger(root: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The finished parts of a study's runs; none where the folder has no ledger."""
    return list(read_lines(root / LEDGER, notes, required=False))
