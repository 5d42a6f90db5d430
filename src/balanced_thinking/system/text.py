"""Texts of strangers on a terminal: no control character takes effect there, and no text is endless."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Control characters except tab and newline, the marks that reverse text, and halves of characters (lone surrogates).
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_SURROGATES = re.compile("[\ud800-\udfff]")


def show_controls(text: str) -> str:
    """The text with each control character as its code, such as `\\x1b`; newlines and tabs stay."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def replace_surrogates(text: str) -> str:
    """The text with the sign for an unreadable character in place of half a one, which no file in UTF-8 can hold."""
    return _SURROGATES.sub("\ufffd", text)


def shorten_text(text: str, most: int) -> str:
    """The text, or its start and its end with the number of characters left out between them."""
    if len(text) <= most:
        return text
    start, end = most - most // 4, most // 4
    return f"{text[:start]} [... {len(text) - start - end:,} characters ...] {text[len(text) - end :]}"


def list_some(texts: Sequence[str], most: int, between: str = ", ") -> str:
    """The first `most` of them, and how many more there are."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return between.join(texts[:most]) + more
