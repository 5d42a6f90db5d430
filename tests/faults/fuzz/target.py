"""What a fuzz target is, and the guard around one input: time, memory, and which errors have a name."""

from __future__ import annotations

import random
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from balanced_thinking.config.errors import BalancedThinkingError

CORPUS = Path(__file__).parent / "corpus"
SECONDS = 1.0  # of processor time, for 100 kB or less
HANG_SECONDS = 10.0
RISE_MIB = 100  # by which one input may raise the peak of the process
_SOURCE = "/balanced_thinking/"


class Hang(BaseException):
    """One input took too long. It is no Exception, so that no handler of ours takes it for a bad row."""


class Finding(NamedTuple):
    """What one input did wrong: `crash`, `hang`, `slow`, `memory`; where, as the innermost place of ours; in words."""

    kind: str
    place: str
    text: str


@dataclass(frozen=True)
class Target:
    """One reader of input from outside.

    generate: a new input with the structure that the reader expects. run: reads it, checks what must hold of the
    result, and raises only errors with a name. mutate: changes an input. prepare: loads what the first input would,
    so that its memory is not taken for the input's. close: removes what was written. rise_mib, seconds: of one
    input of at most 100 kB.
    """

    name: str
    generate: Callable[[random.Random], bytes]
    run: Callable[[bytes], object]
    mutate: Callable[[random.Random, bytes], bytes]
    close: Callable[[], None] = lambda: None
    prepare: Callable[[], object] = lambda: None
    rise_mib: int = RISE_MIB
    seconds: float = SECONDS


def next_input(target: Target, rng: random.Random, pool: list[bytes], most: int = 200) -> bytes:
    """A new input, or a mutated one of the pool, which keeps the latest `most`."""
    data = target.mutate(rng, rng.choice(pool)) if pool and rng.random() < 0.5 else target.generate(rng)
    if len(pool) < most:
        pool.append(data)
    elif rng.random() < 0.1:
        pool[rng.randrange(most)] = data
    return data


@contextmanager
def limited_time(seconds: float) -> Iterator[None]:
    """Raises Hang after this much processor time, which other processes do not use up."""

    def stop(_: int, frame: FrameType | None) -> None:
        raise Hang(f"more than {seconds:.0f} s")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def try_input(target: Target, data: bytes) -> Finding | None:
    """Run one input. None where it ended well or in an error with a name."""
    began = time.process_time()
    try:
        with limited_time(HANG_SECONDS):
            target.run(data)
    except BalancedThinkingError as error:
        if not str(error).strip():
            return Finding("crash", _place_of(error), f"{type(error).__name__} without a message")
    except (Exception, Hang) as error:
        kind = "hang" if isinstance(error, Hang) else "memory" if isinstance(error, MemoryError) else "crash"
        return Finding(kind, _place_of(error), f"{type(error).__name__}: {str(error)[:300]}")
    seconds, rise = time.process_time() - began, PEAK.rise()
    if seconds > target.seconds * max(1.0, len(data) / 100_000):
        return Finding("slow", target.name, f"{seconds:.1f} s for {len(data)} bytes")
    if rise > target.rise_mib:
        return Finding("memory", target.name, f"{rise:.0f} MiB for {len(data)} bytes")
    return None


class _Peak:
    """The largest memory of this process so far, asked for once per input."""

    def __init__(self) -> None:
        self.mib = peak_mib()

    def rise(self) -> float:
        """MiB since the last call."""
        before, self.mib = self.mib, peak_mib()
        return self.mib - before


def peak_mib() -> float:
    """The largest resident memory of this process so far (VmHWM)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


PEAK = _Peak()


def _place_of(error: BaseException) -> str:
    """The innermost line of the package that the error came through, else of all."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if _SOURCE in frame.filename] or frames
    if not ours:
        return type(error).__name__
    place = Path(ours[-1].filename)
    return f"{place.parent.name}/{place.name}:{ours[-1].name} {type(error).__name__}"


def corpus_of(name: str) -> list[Path]:
    """The inputs of a target that failed once."""
    folder = CORPUS / name
    return sorted(folder.iterdir()) if folder.is_dir() else []
