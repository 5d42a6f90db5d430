"""Files of rows as records: JSON Lines, JSON arrays (one element at a time), objects of objects, CSV.

A CSV file has a line of column names; ` | ` stands between several choices or images, and an empty cell is no value.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import ijson

from balanced_thinking.data.bad_rows import BadRow

SEPARATOR = " | "  # between the choices or images of a CSV cell
TURN_LISTS = ("messages", "conversations")
# What `jsonl` makes of a row; every other key goes to `meta`.
CLAIMED = {"id", "question", "think", "reasoning", "answer", "choices", "image", "images", "meta", "split"}
CLAIMED |= {"prompt", "completion", *TURN_LISTS}
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what surrogateescape makes of bytes that are not UTF-8
_CELL_CHARACTERS = 2**24
_PEEKED = 4096
_SEPARATORS = {";": "semicolons", "\t": "tabs"}  # of spreadsheets in languages with a decimal comma, and of copies


def read_records(file: Path) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """(line or place in the array, from 1; the object or what is wrong with it). Blank lines are skipped."""
    if file.suffix.lower() == ".csv":
        yield from _read_csv(file)
        return
    with file.open("rb") as stream:
        start = stream.read(_PEEKED)
        marked = len(codecs.BOM_UTF8) * start.startswith(codecs.BOM_UTF8)
        stream.seek(marked)
        if start[marked:].lstrip().startswith(b"["):
            yield from _read_array(file, stream)
            return
        for row, line in enumerate(stream, 1):
            if line.strip():
                yield row, _parse_line(row, line)


def check_file_start(file: Path) -> None:
    """Raises ValueError where the beginning of a file says that none of its rows can be read as it is."""
    with file.open("rb") as stream:
        start = stream.read(_PEEKED)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError(f"{file} is UTF-16; save it as UTF-8")
    first, _, rest = start.removeprefix(codecs.BOM_UTF8).lstrip().partition(b"\n")
    if first.strip() == b"{" and rest.lstrip()[:1] not in (b"", b"{") and file.suffix.lower() != ".csv":
        raise ValueError(
            f"{file} spreads a JSON object over several lines; expected one row a line, or an array of all rows in [ ]"
        )


def read_named_objects(file: Path) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    """(name, object) of a file that is one JSON object of objects. Raises ValueError for any other file."""
    try:
        whole = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(whole, dict):
        raise ValueError(f"{file} holds a {type(whole).__name__}; expected an object with an item under each name")
    for row, (name, value) in enumerate(whole.items(), 1):
        yield name, _check_object(row, value)


def _read_csv(file: Path) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """The rows, numbered by their last line in the file. Raises ValueError for a quote that is never closed."""
    csv.field_size_limit(_CELL_CHARACTERS)
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        reader = csv.DictReader(stream, strict=True)
        try:
            reader.fieldnames = names = [_column_name(name) for name in reader.fieldnames or ()]
        except csv.Error as error:
            raise _unclosed_quote_error(file, 1, error) from error
        if len(names) == 1 and (sign := next((sign for sign in _SEPARATORS if sign in names[0]), None)):
            raise ValueError(f"{file} has {_SEPARATORS[sign]} between its columns ({names[0]}); save it with commas")
        if twice := next((name for name in names if name and names.count(name) > 1), None):
            raise ValueError(f"{file}: two columns are called {twice}; rename one")
        while True:
            first = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "unexpected end" in str(error):  # everything from here on became one cell
                    raise _unclosed_quote_error(file, first, error) from error
                yield first, BadRow(first, ("invalid_csv",), str(error))
            else:
                if any("".join(cell or ()).strip() for cell in cells.values()):  # spreadsheets write empty rows, too
                    yield reader.line_num, _build_csv_record(reader.line_num, cells)


def _unclosed_quote_error(file: Path, line: int, error: csv.Error) -> ValueError:
    return ValueError(f"{file}, line {line}: {error}; close the quote that opens there")


def _column_name(name: str) -> str:
    """A column's name as rows have it: `Image ` is `image`."""
    plain = name.strip().lower()
    return plain if plain in CLAIMED else name


def _build_csv_record(row: int, cells: dict[Any, Any]) -> dict[str, Any] | BadRow:
    if None in cells:  # what DictReader files extra cells under
        return BadRow(row, ("invalid_csv",), f"cells too many: {', '.join(cells[None])}")
    record: dict[str, Any] = {name: cell for name, cell in cells.items() if cell}
    if bad := next((cell for cell in record.values() if _NOT_UTF8.search(cell)), None):
        return BadRow(row, ("not_utf8",), bad.encode("utf-8", "surrogateescape").decode("latin-1"))
    for name in ("choices", "image", "images"):
        if name in record:
            record[name] = record[name].split(SEPARATOR)
    return record


def _read_array(file: Path, stream: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """An array's elements, one at a time: published ones hold hundreds of thousands."""
    row = 0
    try:
        for row, value in enumerate(ijson.items(stream, "item", use_float=True), 1):
            yield row, _check_object(row, value)
        return
    except (ijson.JSONError, UnicodeDecodeError):
        pass  # the standard library takes more: NaN, and whole numbers of any length
    try:
        rest = json.loads(file.read_bytes())[row:]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} begins like a JSON array but is not one: {error}") from error
    for place, value in enumerate(rest, row + 1):
        yield place, _check_object(place, value)


def _parse_line(row: int, line: bytes) -> dict[str, Any] | BadRow:
    try:
        return _check_object(row, json.loads(line))
    except (ValueError, RecursionError):  # not JSON, not UTF-8, nested beyond reason
        return BadRow(row, ("invalid_json",), line.decode("utf-8", errors="replace"))


def _check_object(row: int, value: Any) -> dict[str, Any] | BadRow:
    return value if isinstance(value, dict) else BadRow(row, ("not_an_object",), str(value))
