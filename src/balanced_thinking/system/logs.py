"""The log. Our modules write to loggers below `balanced_thinking`; the program decides what is shown.

The commands and the study's workers show the log on standard error. The library itself adds no handler, so that a
program that imports it can decide.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from balanced_thinking.system.process import process_rank
from balanced_thinking.system.text import shorten_text, show_controls

LOGGER = "balanced_thinking"
_LONGEST = 100_000  # characters of a record: rows of strangers may be in it


class StderrHandler(logging.Handler):
    """Writes to the current standard error, above a progress bar if one is drawn there."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = f"{show_controls(shorten_text(self.format(record), _LONGEST))}\n"
            if (tqdm := sys.modules.get("tqdm.std")) is not None:
                tqdm.tqdm.write(line, file=sys.stderr, end="")
            else:
                sys.stderr.write(line)
            sys.stderr.flush()
        except Exception:  # as in every handler of logging: a record that fails stops no training
            with suppress(Exception):
                sys.stderr.write(f"a line of the log could not be written: {record.name}, line {record.lineno}\n")


@contextmanager
def log_to_stderr(level: int = logging.INFO) -> Iterator[None]:
    """Inside this context, log records from `level` on are shown on standard error.

    With several ranks, only the first one shows all records. The others show their errors, with their rank.
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
