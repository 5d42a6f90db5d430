"""Clean-up when a process ends, also when SIGTERM ends it."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_CLEAN_UPS: list[Callable[[], Any]] = []


def run_at_end(clean: Callable[[], Any]) -> None:
    """Run `clean` when the process ends normally, or by SIGTERM within `clean_up_on_sigterm`. It must not raise."""
    atexit.register(clean)
    _CLEAN_UPS.append(clean)


@contextmanager
def clean_up_on_sigterm() -> Iterator[None]:
    """Inside this context SIGTERM first runs what `run_at_end` registered, then ends the process at once, as usual.

    The handler does not raise an exception, because a library that catches it inside a callback would lose it. If
    another handler is set already, it stays.
    """
    main = threading.current_thread() is threading.main_thread()  # other threads may not set handlers
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _clean_up_and_end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _clean_up_and_end(number: int, _: Any) -> None:
    for clean in _CLEAN_UPS:
        clean()
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    os._exit(128 + number)  # the first process of a container outlives its signals
