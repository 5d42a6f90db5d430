"""What this process may use, and the time."""

from __future__ import annotations

import os
from datetime import UTC, datetime


def usable_cores() -> int:
    """CPU cores that this process may use: a container, a batch system or `taskset` can leave it but a few."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
