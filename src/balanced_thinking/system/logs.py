"""What a command says while it works. Our modules write to the loggers below `balanced_thinking`; a program shows them.

The commands and the study's workers are such programs: they show the log on standard error. The library itself adds no
handler, so that a program that imports it decides what is shown.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from balanced_thinking.system.process import process_rank

LOGGER = "balanced_thinking"


class StderrHandler(logging.Handler):
    """Writes to the standard error of the moment, above a progress bar that is drawn there."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = f"{self.format(record)}\n"
            if (tqdm := sys.modules.get("tqdm.std")) is not None:
                tqdm.tqdm.write(line, file=sys.stderr, end="")
            else:
                sys.stderr.write(line)
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


@contextmanager
def log_to_stderr(level: int = logging.INFO) -> Iterator[None]:
    """Within it the log from `level` on is shown on standard error.

    Of several ranks the first one alone reports what it does. The others show their errors, with their rank.
    """
    logger, handler, rank = logging.getLogger(LOGGER), StderrHandler(), process_rank()
    handler.setFormatter(logging.Formatter(f"rank {rank}: %(message)s" if rank else "%(message)s"))
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(max(level, logging.ERROR) if rank else level)
    logger.propagate = False  # a library that configures the root logger would print everything twice
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
