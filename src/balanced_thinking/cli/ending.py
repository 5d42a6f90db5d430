"""How a command ends: its exit code, and one sentence where it failed."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from balanced_thinking.cli.commands import COMMANDS, Command
from balanced_thinking.cli.output import show_log, show_result
from balanced_thinking.cli.parser import Parser
from balanced_thinking.config.errors import BalancedThinkingError, UsageError
from balanced_thinking.data.permissions import permit
from balanced_thinking.system.ending import clean_up_on_sigterm
from balanced_thinking.system.known_errors import describe_known_error, describe_message
from balanced_thinking.system.memory import describe_memory_error
from balanced_thinking.system.process import process_rank
from balanced_thinking.system.signals import StoppedEarly

logger = logging.getLogger(__name__)
DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


class Ending(NamedTuple):
    """An exit code, and the signal by which the process itself is to end."""

    code: int
    number: int | None = None


def run_to_its_end(arguments: argparse.Namespace, parser: Parser) -> Ending:
    """Run the command that was read and return how it ended. Raises SystemExit(2) for wrong usage."""
    name, command = arguments.command, COMMANDS[arguments.command]
    last_words = f"balanced {name}: stopped{command.when_stopped}" if process_rank() == 0 else ""
    try:
        with show_log(arguments), clean_up_on_sigterm(last_words):
            try:
                return Ending(_run_command(name, command, arguments))
            except StoppedEarly as stop:
                if process_rank() == 0:
                    logger.error("\nbalanced %s: %s", name, stop)
                return Ending(128 + stop.number, stop.number if stop.by_signal else None)
            except KeyboardInterrupt:
                logger.error("\nbalanced %s: stopped%s", name, command.when_stopped)
                return Ending(INTERRUPTED, signal.SIGINT)
    except UsageError as error:
        parser.error(describe_message(error))


def _run_command(name: str, command: Command, arguments: argparse.Namespace) -> int:
    from balanced_thinking.data.bad_rows import BadRowsError

    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|trl")
    try:
        given = {name: getattr(arguments, f"allow_{name}", None) for name in ("outside", "urls")}
        with closing_progress_bars(), permit(**given):
            result = command.run(arguments)
    except UsageError:
        raise
    except BadRowsError as error:
        cure = "Nothing was done with the data: fix these rows, or leave them out with --on-bad-row drop."
        logger.error("%s\n\n%s", error.table(), cure)
        return _failure_code(arguments)
    except BrokenPipeError:  # whoever read the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:  # what no line here knows is for the last handler
        lack = None if isinstance(error, (BalancedThinkingError, ValueError)) else describe_memory_error(error)
        if lack is not None:
            return _report_failure(name, f"{lack}{command.saves_memory}")
        if (known := describe_known_error(error)) is None:
            raise
        _report_failure(name, known)
        return _failure_code(arguments) if isinstance(error, BalancedThinkingError) else FAILED
    if result is not None:
        show_result(result)
    return DONE


def _failure_code(arguments: argparse.Namespace) -> int:
    """A dry run that finds a fault has started nothing, as wrong usage."""
    return USAGE if getattr(arguments, "dry_run", False) else FAILED


def _report_failure(name: str, message: str) -> int:
    logger.error("balanced %s: %s", name, message)
    return FAILED


@contextmanager
def closing_progress_bars() -> Iterator[None]:
    """Ends the line of each progress bar that a failure cuts off, so that what is said next has a line of its own."""
    try:
        yield
    finally:
        if (tqdm := sys.modules.get("tqdm.std")) is not None:
            for bar in list(getattr(tqdm.tqdm, "_instances", ())):
                bar.close()
