"""Signals that end a process, and those that must wait while something is finished."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from balanced_thinking.system.ending import end_by_signal

logger = logging.getLogger(__name__)
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ACTIVE: list[GracefulStop] = []


def _in_main_thread() -> bool:
    """Only the main thread may set signal handlers."""
    return threading.current_thread() is threading.main_thread()


class StoppedEarly(KeyboardInterrupt):
    """A stop that was asked for, after everything was saved. The message is a sentence for the user.

    `number` is the signal, and `by_signal` is false where a time budget ended in its place.
    """

    def __init__(self, sentence: str, number: int = signal.SIGTERM, *, by_signal: bool = True) -> None:
        super().__init__(sentence)
        self.number, self.by_signal = number, by_signal


@contextmanager
def defer_signals() -> Iterator[None]:
    """SIGINT and SIGTERM wait until the end of the block. Outside the main thread, and where a `GracefulStop` only
    notes them: no change."""
    if not _in_main_thread() or _ACTIVE:
        yield
        return
    caught: list[int] = []
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: caught.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for late in caught[:1]:
        signal.raise_signal(late)


class GracefulStop:
    """From `start` to `close`, the first SIGINT or SIGTERM is only noted in `number`. A second one ends the process.

    Python runs a handler only between two of its own instructions, and a matrix product or a collective can take
    minutes. So a thread reads the signals, too: it reports the first one, and ends the process at the second.

    Args:
        on_first: called in that thread with the name of the first signal, such as "SIGTERM".
        last_words: the line that is written when a second signal ends the process; "" for none.
        on_second: called before that. It must not raise.
    """

    def __init__(
        self, on_first: Callable[[str], None], last_words: str = "", on_second: Callable[[], None] = lambda: None
    ) -> None:
        self.number: int | None = None
        self._on_first, self._last_words, self._on_second = on_first, last_words, on_second
        self._before: dict[int, Any] = {}
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Take over the two signals. Outside the main thread: no change. A signal that is ignored stays so."""
        if not _in_main_thread() or self._before:
            return
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._fd_before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._follow_signals, name="signals", daemon=True)
        self._thread.start()
        _ACTIVE.append(self)
        for number in STOP_SIGNALS:
            if (before := signal.getsignal(number)) is not signal.SIG_IGN:
                self._before[number] = before
                signal.signal(number, self._note_signal)

    def close(self) -> None:
        """Give the signals back to the handlers that had them."""
        for number, before in self._before.items():
            signal.signal(number, before)
        if self._thread is None:
            return
        signal.set_wakeup_fd(self._fd_before)
        _ACTIVE.remove(self)
        os.write(self._writing, b"\0")
        self._thread.join()
        os.close(self._reading)
        os.close(self._writing)
        self._thread, self._before = None, {}

    def _note_signal(self, number: int, _: Any) -> None:
        self.number = self.number or number

    def _follow_signals(self) -> None:
        """Count what the handler in C has written: a byte for each signal, and a zero at the end."""
        count = 0
        while (byte := os.read(self._reading, 1)) != b"\0":
            if byte[0] not in STOP_SIGNALS:
                continue
            count += 1
            if count == 1:
                self._on_first(signal.Signals(byte[0]).name)
            else:
                self._on_second()
                end_by_signal(byte[0], self._last_words)


def _leave_signals_to_parent() -> None:
    """In a forked process: its signals are not its parent's, and it does not decide when to stop."""
    if _ACTIVE and _in_main_thread():
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)


os.register_at_fork(after_in_child=_leave_signals_to_parent)


def shield_worker(then: Callable[[int], None] | None, worker: int) -> None:
    """Make a process of a data loader end with its parent, and by nobody else. Calls `then(worker)` afterwards.

    Ctrl-C and a scheduler's SIGTERM reach all processes, but the training needs its workers until it has saved.
    """
    if hasattr(signal, "sigtimedwait"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    if then is not None:
        then(worker)


def _end_with_parent(parent: int) -> None:
    while True:
        with suppress(InterruptedError):
            found = signal.sigtimedwait(STOP_SIGNALS, 0.5)
            if os.getppid() != parent or (found and found.si_signo == signal.SIGTERM and found.si_pid == parent):
                os._exit(0)
