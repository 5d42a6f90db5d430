"""How a process of ours ends when the system asks it to."""

from __future__ import annotations

import atexit
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_AT_END: list[Callable[[], Any]] = []


def at_end(clean: Callable[[], Any]) -> None:
    """Let `clean`, which must not raise, run when the process ends: by itself, or by SIGTERM within `orderly_end`."""
    atexit.register(clean)
    _AT_END.append(clean)


@contextmanager
def orderly_end() -> Iterator[None]:
    """Within it SIGTERM ends the process at once, as it does anyway, but what `at_end` was told is cleaned up before.

    No exception does that: one that is raised while a library's callback runs would be swallowed there. A handler that
    somebody else has set stays.
    """
    main = threading.current_thread() is threading.main_thread()  # others may not set handlers
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(number: int, _: Any) -> None:
    for clean in _AT_END:
        clean()
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
