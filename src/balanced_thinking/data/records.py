"""Read the rows of a file as dicts: JSON Lines, JSON arrays (one element at a time), objects of objects, CSV and TSV.

A CSV or TSV file begins with its column names. ` | ` separates several choices or images; an empty cell has no
value, nor has NaN.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, AnyStr, BinaryIO, cast

import ijson

from balanced_thinking.config.foreign_json import (
    MOST_FILE_BYTES,
    DepthGuard,
    JsonError,
    TooDeepError,
    TooLargeError,
    parse_json,
    read_json_file,
)
from balanced_thinking.data.bad_rows import BadRow, DataError
from balanced_thinking.data.csv_numbers import find_whole_columns, read_numbers
from balanced_thinking.data.keys import CLAIMED, LIST_KEYS, OPTIONAL
from balanced_thinking.data.unpacking import open_unpacked
from balanced_thinking.data.unreadable import explain_content
from balanced_thinking.data.values import NULL_TEXTS, parse_object_text, split_list_text

SEPARATORS = {".csv": ",", ".tsv": "\t"}  # suffix -> between columns
SEPARATOR = " | "  # between the choices or images of a CSV cell
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what surrogateescape makes of bytes that are not UTF-8
_MAX_CELL_CHARACTERS = 2**24
MOST_ROW_BYTES = 2**27  # of a line, and of an element of an array
MOST_COLUMNS = 10_000  # of a row
_MOST_EMPTY_LINES = 10**6
_MOST_SHOWN = 10_000  # characters of a line that cannot be read, which a message shortens further
_START_BYTES = 4096
_SEPARATOR_NAMES = {";": "semicolons", "\t": "tabs", ",": "commas"}  # semicolons: where commas are in numbers


def read_records(file: Path) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """Yield (line or position in the array, from 1; the object, or a BadRow). Blank lines are skipped."""
    if file.suffix.lower() in SEPARATORS:
        yield from _read_csv(file)
        return
    with open_text_file(file) as stream:
        start = stream.read(_START_BYTES)
        marked = len(codecs.BOM_UTF8) * start.startswith(codecs.BOM_UTF8)
        stream.seek(marked)
        if start[marked:].lstrip().startswith(b"["):
            yield from _read_array(file, stream)
            return
        last = 0
        for row, line in enumerate(bounded_lines(file, stream), 1):
            if line.strip():
                last = row
                yield row, _parse_line(row, line)
            elif row - last > _MOST_EMPTY_LINES:
                raise DataError(f"{file} has more than {_MOST_EMPTY_LINES:,} empty lines from line {last + 1}")


def bounded_lines(file: Path, stream: IO[AnyStr]) -> Iterator[AnyStr]:
    """The lines of a stream. Raises DataError for a longer one than `MOST_ROW_BYTES`, before it is in memory."""
    number = 0
    while line := stream.readline(MOST_ROW_BYTES + 1):
        number += 1
        if len(line) > MOST_ROW_BYTES:
            raise DataError(
                f"{file}, row {number}: the line has more than {MOST_ROW_BYTES >> 20} MiB; expected one row per line, "
                "and large pictures as files of their own"
            )
        yield line


@contextmanager
def open_text_file(file: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked if its name ends in `.gz`. Raises DataError for one that cannot be unpacked."""
    packed = file.suffix.lower() == ".gz"
    try:
        with open_unpacked(file) if packed else file.open("rb") as stream:
            yield cast(BinaryIO, stream)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be unpacked ({error}); expected a complete file of gzip") from error


def refuse_unreadable_file(file: Path) -> None:
    """Raise DataError if the beginning of a file shows that none of its rows can be read."""
    with open_text_file(file) as stream:
        start = stream.read(_START_BYTES)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{file} is UTF-16; expected UTF-8: save it in that encoding")
    if found := explain_content(start):
        raise DataError(f"{file} is {found}; expected text in UTF-8")
    first, _, rest = start.removeprefix(codecs.BOM_UTF8).lstrip().partition(b"\n")
    if first.strip() == b"{" and rest.lstrip()[:1] not in (b"", b"{") and file.suffix.lower() not in SEPARATORS:
        raise DataError(
            f"{file} has a JSON object on several lines; expected one row per line, or an array of all rows in [ ]"
        )


def read_named_objects(file: Path) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    """Yield (name, object) from a file that is one JSON object of objects. Raises DataError for any other file."""
    try:
        items = read_json_file(file)
    except JsonError as error:
        raise DataError(str(error)) from error
    if not isinstance(items, dict):
        raise DataError(f"{file} has a {type(items).__name__}; expected an object with an item under each name")
    for row, (name, value) in enumerate(items.items(), 1):
        yield name, _as_object_or_bad_row(row, value)


def _read_csv(file: Path) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """The rows, numbered by their last line in the file. Raises DataError for a quote that is never closed."""
    csv.field_size_limit(_MAX_CELL_CHARACTERS)
    separator = SEPARATORS[file.suffix.lower()]
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        reader = csv.DictReader(bounded_lines(file, stream), strict=True, delimiter=separator)
        try:
            reader.fieldnames = names = [_normalize_column_name(name) for name in reader.fieldnames or ()]
        except csv.Error as error:
            raise _unclosed_quote_error(file, 1, error) from error
        if len(names) == 1 and (sign := next((sign for sign in _SEPARATOR_NAMES if sign in names[0]), None)):
            found = f"{_SEPARATOR_NAMES[sign]} between its columns ({names[0]})"
            raise DataError(f"{file} has {found}; expected {_SEPARATOR_NAMES[separator]}: save it with them")
        if twice := next((name for name in names if name and names.count(name) > 1), None):
            raise DataError(f"{file} has two columns called {twice}; rename one")
        whole = _find_whole_columns(file, separator, names)
        while True:
            first = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "unexpected end" in str(error):  # the rest of the file became one cell
                    raise _unclosed_quote_error(file, first, error) from error
                yield first, BadRow(first, ("invalid_csv",), str(error))
            else:
                if any("".join(cell or ()).strip() for cell in cells.values()):  # spreadsheets also write empty rows
                    yield reader.line_num, _build_csv_record(reader.line_num, cells, whole)


def _find_whole_columns(file: Path, separator: str, names: list[str]) -> frozenset[str]:
    """The columns of whole numbers written as `4.0`. They are known at the file's end only, so it is read for them."""
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        reader = csv.DictReader(bounded_lines(file, stream), strict=True, delimiter=separator)
        try:
            reader.fieldnames = names if reader.fieldnames else []
            return find_whole_columns(reader)
        except DataError:  # the reader of the rows names it
            return frozenset()


def csv_columns(file: Path) -> tuple[str, ...]:
    """The column names of a CSV or TSV file, also of columns without values."""
    csv.field_size_limit(_MAX_CELL_CHARACTERS)
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        try:
            lines = bounded_lines(file, stream)
            first = next(csv.reader(lines, delimiter=SEPARATORS[file.suffix.lower()]), [])
        except csv.Error:  # the reader of the rows names it
            return ()
    refuse_many_columns(file, len(first))
    return tuple(_normalize_column_name(name) for name in first)


def refuse_many_columns(file: Path, count: int) -> None:
    """Raises DataError for a table with more columns than `MOST_COLUMNS`."""
    if count > MOST_COLUMNS:
        raise DataError(f"{file} has {count} columns; expected at most {MOST_COLUMNS}")


def _unclosed_quote_error(file: Path, line: int, error: csv.Error) -> DataError:
    return DataError(f"{file}, line {line}: {error}; close the quote that opens in this line")


def _normalize_column_name(name: str) -> str:
    """The key for a column: `Image ` becomes `image`."""
    plain = name.strip().lower()
    return plain if plain in CLAIMED or plain in OPTIONAL else name


def _build_csv_record(row: int, cells: dict[Any, Any], whole: frozenset[str]) -> dict[str, Any] | BadRow:
    if None in cells:  # DictReader's key for extra cells
        return BadRow(row, ("invalid_csv",), f"too many cells: {', '.join(cells[None])}")
    record: dict[str, Any] = {name: cell for name, cell in cells.items() if cell and cell not in NULL_TEXTS}
    if bad := next((cell for cell in record.values() if _NOT_UTF8.search(cell)), None):
        return BadRow(row, ("not_utf8",), bad.encode("utf-8", "surrogateescape").decode("latin-1"))
    return read_numbers(record | {name: split_cell(record[name]) for name in LIST_KEYS if name in record}, whole)


def split_cell(cell: str) -> str | list[str]:
    """The values that ` | ` separates; the text itself without one, and where the text is a list or an object."""
    is_listed = SEPARATOR not in cell or split_list_text(cell) is not None or parse_object_text(cell) is not None
    return cell if is_listed else cell.split(SEPARATOR)


def _read_array(file: Path, stream: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """The elements one at a time, because published arrays have hundreds of thousands."""
    row = 0
    try:
        for row, value in enumerate(ijson.items(DepthGuard(stream, MOST_ROW_BYTES), "item", use_float=True), 1):
            yield row, _as_object_or_bad_row(row, value)
        return
    except (TooDeepError, TooLargeError) as error:
        raise DataError(f"{file}, after row {row}: {error}") from error
    except (ijson.JSONError, ValueError):
        pass  # the standard library reads more: NaN, and integers of up to 4,300 digits
    try:
        stream.seek(0)
        text = stream.read(MOST_FILE_BYTES + 1)
        if len(text) > MOST_FILE_BYTES:
            raise TooLargeError(f"what is wrong is found in files of up to {MOST_FILE_BYTES >> 20} MiB only")
        rest = parse_json(text)[row:]
    except ValueError as error:
        raise DataError(f"{file} begins like a JSON array but is not valid (after row {row}): {error}") from error
    for position, value in enumerate(rest, row + 1):
        yield position, _as_object_or_bad_row(position, value)


def _parse_line(row: int, line: bytes) -> dict[str, Any] | BadRow:
    try:
        return _as_object_or_bad_row(row, parse_json(line))
    except ValueError as error:  # not JSON, or not UTF-8
        problem = "too_deep" if isinstance(error, TooDeepError) else "invalid_json"
        return BadRow(row, (problem,), line[:_MOST_SHOWN].decode("utf-8", errors="replace"))


def _as_object_or_bad_row(row: int, value: Any) -> dict[str, Any] | BadRow:
    if not isinstance(value, dict):
        return BadRow(row, ("not_an_object",), str(value)[:_MOST_SHOWN])
    if len(value) > MOST_COLUMNS:
        return BadRow(row, ("too_many_values",), f"{len(value)} keys")
    return value
