"""Clean-up when a process ends, also when a signal ends it."""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

_CLEAN_UPS: list[Callable[[], Any]] = []
_PARENT_POLL_SECONDS = 0.5


def run_at_end(clean: Callable[[], Any]) -> None:
    """Run `clean` when the process ends normally, or by SIGTERM within `clean_up_on_sigterm`. It must not raise."""
    atexit.register(clean)
    _CLEAN_UPS.append(clean)


@contextmanager
def clean_up_on_sigterm(last_words: str = "") -> Iterator[None]:
    """Inside this context SIGTERM first runs what `run_at_end` registered, then ends the process at once, as usual.

    The handler does not raise an exception, because a library that catches it inside a callback would lose it. If
    another handler is set already, it stays. `last_words` is the line that is written then.
    """
    main = threading.current_thread() is threading.main_thread()  # other threads may not set handlers
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    owner = os.getpid()  # a forked process inherits the handler, but neither the message nor the files are its own

    def end(number: int, _: Any) -> None:
        end_by_signal(number, last_words, clean=os.getpid() == owner)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def stop_with_parent(parent: int) -> None:
    """From now on, the end of the parent process, whose number this is, is as a SIGTERM.

    For who would otherwise go on without anybody's knowledge, such as on a cluster that gives its GPU to another. A
    parent that has ended before this call counts, too.
    """

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, name="parent", daemon=True).start()


def end_by_signal(number: int, last_words: str = "", *, clean: bool = True) -> None:
    """End the process at once by a signal, in any thread, after what `run_at_end` registered."""
    if clean:
        if last_words:
            with suppress(OSError):
                os.write(2, f"\n{last_words}\n".encode())  # not by the log: the signal may have interrupted it
        for clean_up in _CLEAN_UPS:
            clean_up()
    ctypes.pythonapi.PyOS_setsig(number, None)  # the default handler; `signal.signal` is for the main thread only
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # the first process of a container outlives its signals


def end_at_once(code: int) -> None:
    """End the process with an exit code, in any thread, after what `run_at_end` registered."""
    for clean_up in _CLEAN_UPS:
        clean_up()
    sys.stderr.flush()
    os._exit(code)


def exit_by_signal(number: int) -> None:
    """End the process as at the end of a program, but by a signal, so that a shell's loop around it ends, too."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    end_by_signal(number, clean=False)
