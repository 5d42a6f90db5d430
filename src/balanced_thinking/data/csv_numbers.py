"""Numbers in the cells of a CSV file: whole ones that were written as `4.0`, and infinite ones.

A column of whole numbers with a gap becomes one of floats, and then each of its cells ends in `.0`. So a column is one
of whole numbers if every cell with a value is such a number. One `4.5` or one word decides against it: `4.0` may then
be meant.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from balanced_thinking.data.values import NULL_TEXTS

_WHOLE = re.compile(r"[+-]?\d+\.0")
_LARGE = re.compile(r"[+-]?\d(?:\.\d{1,15})?e\+(?:1[6-9]|20)", re.IGNORECASE)  # as Python writes floats from 1e16 on
_INFINITE = re.compile(r"[+-]?inf", re.IGNORECASE)


def find_whole_columns(rows: Iterator[Mapping[Any, Any]]) -> frozenset[str]:
    """The columns of whole numbers that are written with `.0`. Rows are read up to the last such column's end.

    Most columns are texts, which their first cell shows, so that usually one row is read.
    """
    possible: set[str] | None = None
    written: set[str] = set()
    while possible is None or possible:
        try:
            cells = next(rows)
        except StopIteration:
            break
        except csv.Error:  # the reader of the rows names it
            continue
        possible = {name for name in cells if isinstance(name, str)} if possible is None else possible
        for name in [*possible]:
            cell = cells.get(name)
            if not cell or cell in NULL_TEXTS or _INFINITE.fullmatch(cell) or _LARGE.fullmatch(cell):
                continue
            written.add(name)
            if not _WHOLE.fullmatch(cell):
                possible.discard(name)
    return frozenset(written & (possible or set()))


def read_numbers(record: Mapping[str, Any], whole: Iterable[str]) -> dict[str, Any]:
    """The record with whole numbers in these columns, and with infinite ones as numbers, which no reader takes."""
    numbers = {name: str(int(Decimal(record[name]))) for name in whole if _is_finite(record.get(name))}
    infinite = {name: float(cell) for name, cell in record.items() if _is_infinite(cell)}
    return {**record, **numbers, **infinite}


def _is_finite(cell: Any) -> bool:
    return isinstance(cell, str) and not _INFINITE.fullmatch(cell) and cell not in NULL_TEXTS


def _is_infinite(cell: Any) -> bool:
    return isinstance(cell, str) and _INFINITE.fullmatch(cell) is not None
