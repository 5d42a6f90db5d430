"""Two ranks of one training: forked with a launcher's environment, or started by `accelerate launch`."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from tests.faults.forked import Ended, Forked, Moment
from tests.faults.kinds import Training

RANKS = 2
STOP_SECONDS = 60.0  # a rank whose neighbour was killed ends within this time


class RanksEnded(NamedTuple):
    """How each rank ended, and how long the last one lived after the kill (0 without one)."""

    ranks: tuple[Ended, ...]
    seconds_after: float

    @property
    def text(self) -> str:
        return "\n---- next rank\n".join(ended.text for ended in self.ranks)


@dataclass(frozen=True)
class RankKill:
    """Rank `rank` is killed at `moment`."""

    rank: int
    moment: Moment

    def describe(self) -> str:
        return f"rank {self.rank}, {self.moment.describe()}"


def run_ranks(training: Training, kill: RankKill | None, *more: str) -> RanksEnded:
    """Run all ranks; where one is to be killed, wait for the others to end by themselves.

    Raises TimeoutError where they take longer than STOP_SECONDS after the kill.
    """
    port = free_port()
    with ExitStack() as stack:
        ranks = []
        for rank in range(RANKS):
            moment = kill.moment if kill and kill.rank == rank else None
            output = training.output.with_name(f"output-{rank}.txt")
            call = partial(_run_rank, training.words(*more), _environment(rank, port))
            ranks.append(stack.enter_context(Forked(call, output, watched=training.run, moment=moment)))
        if kill is not None and (kill.moment.delay_seconds or not kill.moment.pattern):
            if not kill.moment.pattern or ranks[kill.rank].wait_for_event():
                _sleep_while(lambda: ranks[kill.rank].poll() is None, kill.moment.delay_seconds)
            ranks[kill.rank].kill()
        if kill is not None:
            ranks[kill.rank].wait()
        killed_at = time.monotonic()
        ended = [Ended(rank.wait(STOP_SECONDS if kill else 300.0), rank.text(), 0.0) for rank in ranks]
        return RanksEnded(tuple(ended), time.monotonic() - killed_at if kill else 0.0)


def _sleep_while(lives: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while lives() and time.monotonic() < end:
        time.sleep(0.001)


def _environment(rank: int, port: int) -> dict[str, str]:
    """What torchrun and accelerate set for each process."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(RANKS),
        "LOCAL_WORLD_SIZE": str(RANKS),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
    }


def _run_rank(words: list[str], environment: dict[str, str]) -> int:
    import accelerate.state

    from balanced_thinking.cli import main

    os.environ.update(environment)
    for name in ("AcceleratorState", "PartialState", "GradientState"):  # of the parent's own training
        getattr(accelerate.state, name)._shared_state.clear()
    return main(words)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def random_rank_kill(rng: random.Random, seconds: float, save_begins: str) -> RankKill:
    """Either rank at any time, or the first inside a save, which it alone writes."""
    if rng.random() < 0.5:
        return RankKill(rng.randrange(RANKS), Moment(delay_seconds=rng.uniform(0.4 * seconds, seconds)))
    return RankKill(0, Moment(save_begins, rng.randint(1, 5), rng.choice([0.0, rng.uniform(0.0001, 0.04)])))
