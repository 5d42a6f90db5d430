"""Files of a run that may be missing or cut short: what can be read of them, and a note on the rest."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml


def number(value: object) -> float | None:
    """The value as a float, or None when it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= sys.float_info.max else None  # JSON has whole numbers of any size


def read_lines(path: Path, notes: list[str], *, required: bool = True) -> Iterator[dict[str, Any]]:
    """The objects of a JSON Lines file, one at a time. A line cut short by an interruption is told and skipped."""
    if not path.is_file():
        if required:
            notes.append(f"{place(path)} is missing")
        return
    damaged = 0
    with path.open("rb") as lines:
        for line in filter(bytes.strip, lines):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if isinstance(row, dict):
                yield row
            else:
                damaged += 1
    if damaged:
        notes.append(f"{place(path)}: {damaged} lines are not JSON objects and are left out")


def read_mapping(path: Path, notes: list[str]) -> Mapping[str, Any]:
    """A JSON or YAML file that holds one mapping; empty, with a note, when it is missing or damaged."""
    if not path.is_file():
        notes.append(f"{place(path)} is missing")
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        notes.append(f"{place(path)} cannot be read ({type(error).__name__})")
        return {}
    if not isinstance(value, dict):
        notes.append(f"{place(path)} holds {type(value).__name__}, a mapping was expected")
        return {}
    return value


def place(path: Path) -> str:
    """The path as seen from its run: `metrics.jsonl`, `eval/world-test/summary.json`."""
    parts = path.parts[-3:]
    return "/".join(parts[parts.index("eval") :]) if "eval" in parts else path.name
