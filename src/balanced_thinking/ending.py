"""How a process of ours ends when the system asks it to."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def orderly_end() -> Iterator[None]:
    """Within it SIGTERM ends the process as `sys.exit` does, so that its temporary files go; the exit code is the
    shell's for it, 143. A handler that somebody else has set stays."""
    main = threading.current_thread() is threading.main_thread()  # others may not set handlers
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
