"""Splits for data that are published without them, by a hash of each item's first picture.

The hash is of the picture and not of the id, because one picture often has several questions: all of them must be in
the same split. An item never moves to another split.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from balanced_thinking.data.bad_rows import BadRow
from balanced_thinking.data.example import Example
from balanced_thinking.data.options import check_known_name

# Hundredths of the hash space. A change of these or of a salt moves items between splits: results no longer compare.
SPLITS = {"train": range(20, 100), "validation": range(10, 20), "test": range(10), "all": range(100)}
SALT = b"balanced-thinking/"


def check_split(split: str, owner: str) -> None:
    """Raise DataError for an unknown split."""
    check_known_name(owner, "split", split, SPLITS)


def select_split(rows: Iterable[Example | BadRow], split: str, salt: bytes = SALT) -> Iterator[Example | BadRow]:
    """The rows of `train` (80 %), `validation` or `test` (10 % each). Bad rows are in each split, to be reported."""
    for row in rows:
        if isinstance(row, BadRow) or belongs_to_split(row, split, salt):
            yield row


def belongs_to_split(example: Example, split: str, salt: bytes = SALT) -> bool:
    """Decided by its first picture, or by its first question if it has none. All turns of a conversation are together.

    An item whose picture is missing is in all.
    """
    first = example.history[0].text if example.history else example.question
    content = _file_or_pixel_bytes(example.images[0]) if example.images else first.encode("utf-8", "surrogatepass")
    if content is None:
        return True
    return hash_hundredth(content, salt) in SPLITS[split]


def hash_hundredth(content: bytes, salt: bytes) -> int:
    """A number below 100 from a hash of the content, the same on every machine."""
    return int.from_bytes(hashlib.sha256(salt + content).digest()[:8], "big") % 100


def _file_or_pixel_bytes(image: Any) -> bytes | None:
    """A picture's file, or its pixels if it has no file; None if the file is missing."""
    if isinstance(image, Path):
        return image.read_bytes() if os.path.isfile(image) else None  # False also for a name that no file can have
    return getattr(image, "encoded", None) or image.tobytes()
