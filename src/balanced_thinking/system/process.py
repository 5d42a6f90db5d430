"""The cores that this process may use, and the current time."""

from __future__ import annotations

import os
from datetime import UTC, datetime

# How torchrun (and `accelerate launch`), Intel MPI, Open MPI and MVAPICH name a process's rank.
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


def usable_cores() -> int:
    """Number of CPU cores that this process may use. A container, a batch system or `taskset` can limit it."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def process_rank() -> int:
    """This process's rank among those that a launcher started, as it says in the environment; 0 where there is none."""
    return next((int(rank) for name in _RANKS if (rank := os.environ.get(name, "")).isdecimal()), 0)


def utc_now() -> str:
    """The time in UTC as ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
