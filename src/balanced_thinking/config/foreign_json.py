"""JSON from strangers: nested deeply, of long numbers, large. One sentence says what is wrong. No torch.

Every file that somebody else may have written is read here. Depth is measured before anything is built, because
brackets in brackets cost a parser far more memory than their text has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from balanced_thinking.config.errors import BalancedThinkingError

MOST_DEPTH = 200  # brackets inside each other; real data have less than 20
MOST_FILE_BYTES = 2**28  # of a file that is read at once
_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_STRING_BYTES = re.compile(_STRING.pattern.encode(), re.DOTALL)
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_BRACKETS = re.compile(r"[\[{]+|[\]}]+")
_NO_BRACKET = bytes(code for code in range(256) if code not in b"[]{}")


class JsonError(BalancedThinkingError, ValueError):
    """Text that is not valid JSON, or JSON that is not read."""


class TooDeepError(ValueError):
    """JSON whose brackets are nested too deeply."""

    def __init__(self) -> None:
        super().__init__(f"brackets are nested more than {MOST_DEPTH} levels deep")


class TooLargeError(ValueError):
    """JSON, or a part of it, that is larger than what is read at once."""


def parse_json(text: str | bytes) -> Any:
    """As `json.loads`. Raises ValueError for what is not valid, TooDeepError for more than `MOST_DEPTH` levels."""
    if is_too_deep(text):
        raise TooDeepError
    try:
        return json.loads(text)
    except RecursionError:  # a stack that is nearly used up already
        raise TooDeepError from None


def read_json(text: str | bytes, where: object) -> Any:
    """The value of a JSON text. Raises JsonError with `where` it is from, with line and column if they are known."""
    try:
        return parse_json(text)
    except ValueError as error:
        raise JsonError(f"{where} is not valid JSON: {error}; copy it again from its source, or correct it") from error


def read_json_file(path: Path) -> Any:
    """The value of a JSON file in UTF-8. Raises JsonError, and OSError for a file that cannot be read."""
    if path.stat().st_size > MOST_FILE_BYTES:
        raise JsonError(f"{path} has more than {MOST_FILE_BYTES >> 20} MiB; expected a small file of JSON")
    return read_json(path.read_bytes(), path)


def is_too_deep(text: str | bytes, most: int = MOST_DEPTH) -> bool:
    """Whether the brackets outside of strings are nested more deeply. Takes time in proportion to the text."""
    if isinstance(text, bytes):
        return text.count(b"[") + text.count(b"{") > most and _find_depths(_keep_brackets(text)).most > most
    return text.count("[") + text.count("{") > most and _find_depths(_STRING.sub("", text)).most > most


def _keep_brackets(text: bytes) -> str:
    """The brackets outside of strings. No part of a character of UTF-8 is one."""
    return _STRING_BYTES.sub(b"", text).translate(None, _NO_BRACKET).decode("ascii")


class _Depths(NamedTuple):
    """Levels of brackets: at the end of a text, the most and the least in it."""

    last: int
    most: int
    least: int


def _find_depths(brackets: str, depth: int = 0) -> _Depths:
    """The levels in a text without strings that begins at this depth."""
    most = least = depth
    for run in _BRACKETS.findall(brackets):
        depth += len(run) if run[0] in "[{" else -len(run)
        most, least = max(most, depth), min(least, depth)
    return _Depths(depth, most, least)


class DepthGuard:
    """The `read` of a stream of JSON, which raises TooDeepError before a parser meets the depth.

    most_bytes: of one element of the outermost array; a larger one raises ValueError.
    """

    def __init__(self, stream: BinaryIO, most_bytes: int) -> None:
        self._read: Callable[[int], bytes] = stream.read
        self._most_bytes, self._inside_bytes = most_bytes, 0
        self._depth, self._rest = 0, b""

    def read(self, size: int = -1) -> bytes:
        chunk = self._read(size)
        self._scan(self._rest + chunk)
        return chunk

    def _scan(self, text: bytes) -> None:
        """`_rest` of a string whose end is not read yet: its quote, and a backslash that escapes what comes next."""
        plain = _ESCAPE.sub(b"", text) if b"\\" in text else text
        self._rest = b""
        if plain.count(b'"') % 2:
            self._rest = b'"\\' if plain.endswith(b"\\") else b'"'
        outside = _STRING_BYTES.sub(b"", text)
        depths = _find_depths(outside.translate(None, _NO_BRACKET).decode("ascii"), self._depth)
        self._depth = depths.last
        if depths.most > MOST_DEPTH:
            raise TooDeepError
        between = depths.least <= 1 and bool(outside.strip())
        self._inside_bytes = 0 if between else self._inside_bytes + len(text)
        if self._inside_bytes > self._most_bytes:
            raise TooLargeError(f"an element has more than {self._most_bytes >> 20} MiB")
