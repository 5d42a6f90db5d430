"""Another process that holds a folder: a fork, which costs milliseconds where a new interpreter costs seconds."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from balanced_thinking.system.locks import hold_folder


def names_in(folder: Path) -> list[str]:
    """Everything in a folder, hidden files included."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def fork_process(work: Callable[[], object]) -> int:
    """Run `work` in a forked child, which then ends with 0, or with 1 after an error. Returns the child's number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def end_process(child: int, number: int = signal.SIGKILL) -> int:
    """Send a signal to a child, if it still runs, and return its exit code, negative for a signal."""
    with suppress(ProcessLookupError):
        os.kill(child, number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_at_once(work: Callable[[], object], count: int) -> list[int]:
    """The exit codes of `count` forked children that all begin `work` at the same moment, sorted."""
    reading, writing = os.pipe()

    def begin() -> None:
        os.close(writing)
        os.read(reading, 1)  # returns when the parent closes its end
        work()

    children = [fork_process(begin) for _ in range(count)]
    os.close(writing)
    os.close(reading)
    return sorted(end_process(child, 0) for child in children)


@contextmanager
def held_by_another_process(
    place: Path, purpose: str, *, hold: Callable[[Path, str], AbstractContextManager[None]] = hold_folder
) -> Iterator[int]:
    """Another process holds `place` within this block, and is killed at its end. Gives the number of the process."""
    reading, writing = os.pipe()

    def hold_until_killed() -> None:
        with hold(place, purpose):
            os.write(writing, b"x")
            signal.pause()

    child = fork_process(hold_until_killed)
    try:
        os.close(writing)
        assert os.read(reading, 1) == b"x"
        yield child
    finally:
        os.close(reading)
        with suppress(ChildProcessError):  # the test has ended it
            end_process(child)
