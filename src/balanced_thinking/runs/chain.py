"""Runs that start from other runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def follow_parents(last: T, parent_of: Callable[[T], T | None]) -> list[T]:
    """`last` and everything it builds on, the first ancestor first. Where parents form a circle, each is there once."""
    found = [last]
    while (parent := parent_of(found[0])) is not None and parent not in found:
        found.insert(0, parent)
    return found
