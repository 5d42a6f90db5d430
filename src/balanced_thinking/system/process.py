"""The cores that this process may use, and the current time."""

from __future__ import annotations

import os
from datetime import UTC, datetime


def usable_cores() -> int:
    """Number of CPU cores that this process may use. A container, a batch system or `taskset` can limit it."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def utc_now() -> str:
    """The time in UTC as ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
