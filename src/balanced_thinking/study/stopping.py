"""A study that is asked to stop passes that on to its workers, and waits until they have saved."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from balanced_thinking.study.executors.interface import Worker
from balanced_thinking.system.signals import GracefulStop, StoppedEarly

logger = logging.getLogger(__name__)
_POLL_SECONDS = 0.1
_FIRST_REPORT_SECONDS, _REPORT_SECONDS = 1.0, 15.0
Workers = Collection[Worker]


class StudyStop:
    """Whether to stop, and how: `running` are the workers at any moment. `max_hours` is a time budget from now on."""

    def __init__(self, running: Workers, max_hours: float | None) -> None:
        self._running = running
        self._deadline = None if max_hours is None else time.monotonic() + 3600 * max_hours
        last_words = "ended at once by a second signal; the same command continues from the newest checkpoints"
        self._signals = GracefulStop(self._report_signal, last_words, self._kill_workers)

    @contextmanager
    def stopping_workers(self) -> Iterator[None]:
        """However the block ends, no worker stays behind: they get SIGTERM, and a second signal kills them."""
        self._signals.start()
        try:
            yield
        finally:
            try:
                stop_workers(self._running)
            finally:
                self._signals.close()

    def raise_if_asked(self) -> None:
        """Raises StoppedEarly once a signal has come or the time is over."""
        number = self._signals.number
        if number is not None:
            raise StoppedEarly(_SAID, number, by_signal=number == signal.SIGINT)
        if self._deadline is not None and time.monotonic() > self._deadline:
            logger.warning("the time budget is over: the runs save and stop")
            raise StoppedEarly(_SAID, by_signal=False)

    def _report_signal(self, name: str) -> None:
        logger.warning("%s: the runs save and stop; a second signal ends them at once", name)

    def _kill_workers(self) -> None:
        for process in list(self._running):
            process.kill()


_SAID = "stopped; the same command continues where it stopped"


def stop_workers(running: Workers) -> None:
    """Send SIGTERM to all workers, and wait until they have saved and ended."""
    for process in running:
        process.send_signal(signal.SIGTERM)
    began = reported = time.monotonic()
    while count := sum(process.poll() is None for process in running):
        now = time.monotonic()
        if now - reported > (_FIRST_REPORT_SECONDS if reported == began else _REPORT_SECONDS):
            logger.info("%s still saving", "1 run is" if count == 1 else f"{count} runs are")
            reported = now
        time.sleep(_POLL_SECONDS)
