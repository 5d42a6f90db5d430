"""Reads files of a run that may be missing or incomplete. What cannot be read becomes a note."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml


def finite_number(value: object) -> float | None:
    """The value as a float, or None where it is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= sys.float_info.max else None  # JSON has integers of any size


def read_json_lines(path: Path, notes: list[str], *, required: bool = True) -> Iterator[dict[str, Any]]:
    """The objects of a JSON Lines file, one at a time. Incomplete lines are skipped and counted in `notes`."""
    if not path.is_file():
        if required:
            notes.append(f"{path_in_run(path)} is missing")
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
        notes.append(f"{path_in_run(path)}: {damaged} lines are not JSON objects and are skipped")


def read_mapping(path: Path, notes: list[str]) -> Mapping[str, Any]:
    """A JSON or YAML file with one mapping. Empty, with a note, where the file is missing or damaged."""
    if not path.is_file():
        notes.append(f"{path_in_run(path)} is missing")
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        notes.append(f"{path_in_run(path)} cannot be read ({type(error).__name__})")
        return {}
    if not isinstance(value, dict):
        notes.append(f"{path_in_run(path)} holds {type(value).__name__}; expected a mapping")
        return {}
    return value


def path_in_run(path: Path) -> str:
    """The path relative to its run: `metrics.jsonl`, `eval/world-test/summary.json`."""
    parts = path.parts[-3:]
    return "/".join(parts[parts.index("eval") :]) if "eval" in parts else path.name
