"""Reads files of a run that may be missing or incomplete. What cannot be read becomes a note."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from balanced_thinking.config.errors import BalancedThinkingError
from balanced_thinking.config.foreign_json import parse_json
from balanced_thinking.config.yaml import read_yaml

logger = logging.getLogger(__name__)
# What is read of a file at once. A prediction of 10 MB is read; a line of a gigabyte is skipped.
MOST_LINE_BYTES, MOST_JSON_BYTES, MOST_YAML_BYTES = 1 << 24, 1 << 24, 1 << 20
MOST_PASSED_BYTES = 1 << 30  # of a line that is skipped


def finite_number(value: object) -> float | None:
    """The value as a float, or None where it is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= sys.float_info.max else None  # JSON has integers of any size


class NumberedRow(NamedTuple):
    """A row of a file and its line, from 1."""

    line: int
    values: dict[str, Any]


class UnreadableFileError(BalancedThinkingError, ValueError):
    """A file of a run that is not read: too large, nested too deeply, or a link that leads out of its folder."""


def read_json_lines(path: Path, notes: list[str], *, required: bool = True) -> Iterator[dict[str, Any]]:
    """The objects of a JSON Lines file, one at a time. Lines that cannot be read are skipped and named in `notes`."""
    return (row.values for row in number_json_lines(path, notes, required=required))


def number_json_lines(path: Path, notes: list[str], *, required: bool = True) -> Iterator[NumberedRow]:
    """The same with the number of each line. At most `MOST_LINE_BYTES` of a line are in memory."""
    if not path.is_file():
        if required:
            notes.append(f"{path_in_run(path)} is missing")
        return
    damaged: list[int] = []
    try:
        refuse_outside_link(path)
        with path.open("rb") as file:
            for number, line in enumerate(_read_lines(file), 1):
                row = _read_object(line) if line else None
                if row is not None:
                    yield NumberedRow(number, row)
                elif line is None or line.strip():
                    damaged.append(number)
    except (OSError, UnreadableFileError) as error:
        note_problem(notes, f"{path_in_run(path)} cannot be read: {error}")
    if damaged:
        what = "lines are not JSON objects and are skipped"
        note_problem(notes, f"{path_in_run(path)}: {len(damaged)} {what} (first: line {damaged[0]})")


def _read_lines(file: BinaryIO) -> Iterator[bytes | None]:
    """The lines; None for one that is longer than `MOST_LINE_BYTES`. Raises UnreadableFileError for a huge one."""
    while line := file.readline(MOST_LINE_BYTES):
        if line.endswith(b"\n") or len(line) < MOST_LINE_BYTES:
            yield line
            continue
        passed = len(line)
        while (rest := file.readline(MOST_LINE_BYTES)) and not rest.endswith(b"\n"):
            passed += len(rest)
            if passed > MOST_PASSED_BYTES:  # a file with holes may have terabytes, and need no space
                raise UnreadableFileError(f"the rest is left out: a line has more than {MOST_PASSED_BYTES >> 20} MiB")
        yield None


def _read_object(line: bytes) -> dict[str, Any] | None:
    try:
        row = parse_json(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def read_mapping(path: Path, notes: list[str]) -> Mapping[str, Any]:
    """A JSON or YAML file with one mapping. Empty, with a note, where the file is missing or cannot be read."""
    if not path.is_file():
        notes.append(f"{path_in_run(path)} is missing")
        return {}
    try:
        value = read_foreign_file(path)
    except (OSError, ValueError, RecursionError) as error:
        why = error if isinstance(error, (OSError, BalancedThinkingError)) else type(error).__name__
        note_problem(notes, f"{path_in_run(path)} cannot be read ({why})")
        return {}
    if not isinstance(value, dict):
        note_problem(notes, f"{path_in_run(path)} holds {type(value).__name__}; expected a mapping")
        return {}
    return value


def read_foreign_file(path: Path) -> Any:
    """The value of a small JSON or YAML file that somebody else may have written.

    Raises UnreadableFileError for what is too large or leads elsewhere, OSError, ValueError, RecursionError.
    """
    refuse_outside_link(path)
    most = MOST_JSON_BYTES if path.suffix == ".json" else MOST_YAML_BYTES
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise UnreadableFileError(f"it has more than {most >> 20} MiB")
    text = data.decode("utf-8")
    return parse_json(text) if path.suffix == ".json" else read_yaml(text, path.name)


def refuse_outside_link(path: Path) -> None:
    """Raises UnreadableFileError for a link that leads out of its folder: it could show any file of this machine."""
    if path.is_symlink() and not path.resolve().is_relative_to(path.parent.resolve()):
        raise UnreadableFileError("it is a link that leads out of its folder")


def note_problem(notes: list[str], text: str) -> None:
    """Add a note about something that is left out, and log it."""
    notes.append(text)
    logger.warning("%s", text)


def path_in_run(path: Path) -> str:
    """The path relative to its run: `metrics.jsonl`, `eval/world-test/summary.json`."""
    parts = path.parts[-3:]
    return "/".join(parts[parts.index("eval") :]) if "eval" in parts else path.name
