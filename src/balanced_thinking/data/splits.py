"""Splits for data that is published without them: by a hash of the first picture, which never moves an item.

By pictures and not by ids, because one picture often has several questions: they must fall into one split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from balanced_thinking.config.names import did_you_mean
from balanced_thinking.data.bad_rows import BadRow
from balanced_thinking.data.example import Example

# Hundredths of the hash space. Changing these or a salt moves items between splits, so results no longer compare.
SPLITS = {"train": range(20, 100), "validation": range(10, 20), "test": range(10), "all": range(100)}
SALT = b"balanced-thinking/"


def check_split(split: str, what: str) -> None:
    """Raises ValueError for an unknown one."""
    if split not in SPLITS:
        raise ValueError(f"{what} has no split {split!r}{did_you_mean(split, SPLITS)}; known: {', '.join(SPLITS)}")


def select_split(rows: Iterable[Example | BadRow], split: str, salt: bytes = SALT) -> Iterator[Example | BadRow]:
    """The rows of `train` (80 %), `validation` or `test` (10 each); bad rows belong to all of them, so that each tells
    of them."""
    for row in rows:
        if isinstance(row, BadRow) or belongs_to_split(row, split, salt):
            yield row


def belongs_to_split(example: Example, split: str, salt: bytes = SALT) -> bool:
    """By its first picture; by its question where it has none. A missing picture belongs to every split."""
    content = _image_bytes(example.images[0]) if example.images else example.question.encode("utf-8", "surrogatepass")
    if content is None:
        return True
    return int.from_bytes(hashlib.sha256(salt + content).digest()[:8], "big") % 100 in SPLITS[split]


def _image_bytes(image: Any) -> bytes | None:
    if isinstance(image, Path):
        return image.read_bytes() if image.is_file() else None
    return getattr(image, "encoded", None) or image.tobytes()
