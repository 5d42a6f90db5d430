"""The names of splits: the usual ones, and other spellings of them."""

from __future__ import annotations

from typing import Any

from balanced_thinking.data.values import NULL_TEXTS, is_null

USUAL_SPLITS = ("train", "validation", "test")
SYNONYMS = {"training": "train", "valid": "validation", "val": "validation", "dev": "validation"}
SYNONYMS |= {"testing": "test", "eval": "test", "evaluation": "test"}


def normalize_split(name: str) -> str:
    """The usual name of a split: `train` for `Training`."""
    plain = name.strip().casefold()
    return SYNONYMS.get(plain, plain)


def belongs_to_split(written: Any, split: str) -> bool:
    """Whether a row's `split` is null or names this split, in any case."""
    if split == "all" or is_null(written):
        return True
    name = str(written).strip()
    return not name or name in NULL_TEXTS or name.casefold() == split.strip().casefold()
