"""Cells of CSV files that a spreadsheet must not read as formulas (OWASP: CSV injection)."""

from __future__ import annotations

import re

from balanced_thinking.system.text import show_controls

_QUOTE = "'"
_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%", "\uff1d", "\uff0b", "\uff0d", "\uff20", _QUOTE)
_NUMBER = re.compile(r"[+-]?\d{1,300}(\.\d{1,300})?([eE][+-]?\d{1,5})?")


def disarm_formula(value: object) -> object:
    """The value; a text that a spreadsheet would read as a formula has a quote before it. Numbers stay numbers.

    Control characters other than tabs and newlines are written as their codes.
    """
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    text = value if value.startswith("\r") else show_controls(value)
    return f"{_QUOTE}{show_controls(text)}" if text.lstrip(" ").startswith(_STARTS) else text


def rearm_formula(cell: str) -> str:
    """What `disarm_formula` had, for our own files that are read again."""
    return cell[1:] if cell.startswith(_QUOTE) and cell[1:].lstrip(" ").startswith(_STARTS) else cell
