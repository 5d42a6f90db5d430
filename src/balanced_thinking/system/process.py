"""The cores that this process may use, its rank, and the time."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import NamedTuple

# How torchrun (and `accelerate launch`), Intel MPI, Open MPI and MVAPICH name a process's rank.
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_LOCAL_RANKS = ("LOCAL_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK")


def usable_cores() -> int:
    """Number of CPU cores that this process may use. A container, a batch system or `taskset` can limit it."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def process_rank(*, local: bool = False) -> int:
    """This process's rank among all that a launcher started, or among those of this machine; 0 without a launcher."""
    names = _LOCAL_RANKS if local else _RANKS
    return next((int(rank) for name in names if (rank := os.environ.get(name, "")).isdecimal()), 0)


def count_ranks() -> int:
    """How many processes a launcher has started; 1 without a launcher."""
    return next((int(ranks) for name in _SIZES if (ranks := os.environ.get(name, "")).isdecimal()), 1)


class Clock(NamedTuple):
    """Time on the wall clock and CPU time of this process: a reading, or what passed between two readings."""

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0

    def since(self, earlier: Clock) -> Clock:
        return Clock(self.wall_seconds - earlier.wall_seconds, self.cpu_seconds - earlier.cpu_seconds)

    def plus(self, other: Clock) -> Clock:
        return Clock(self.wall_seconds + other.wall_seconds, self.cpu_seconds + other.cpu_seconds)


def read_clock() -> Clock:
    return Clock(time.perf_counter(), time.process_time())


def utc_now() -> str:
    """The time in UTC as ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
