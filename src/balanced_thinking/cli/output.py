"""What a command exists to print goes to standard output; all else is the log, on standard error."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from balanced_thinking.cli.parser import Parser
from balanced_thinking.system.logs import log_to_stderr
from balanced_thinking.system.process import process_rank
from balanced_thinking.system.text import show_controls


def show_result(text: object) -> None:
    """Print a result, with control characters as their codes. Of several ranks the first one prints it."""
    if process_rank() == 0:
        print(text if isinstance(text, Path) else show_controls(str(text)), flush=True)


def add_output_options(parser: Parser) -> None:
    """`--quiet` and `--verbose`, which every command has."""
    group = parser.add_argument_group("output").add_mutually_exclusive_group()
    group.add_argument("-q", "--quiet", action="store_true", help="show only results, warnings and errors")
    group.add_argument(
        "-v", "--verbose", action="store_true", help="also show details and the warnings of other libraries"
    )


def show_log(arguments: argparse.Namespace) -> AbstractContextManager[None]:
    """Within it the log is on standard error, as far as the command line asks for it."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not arguments.verbose:  # warnings of the libraries that no user of ours can act on
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # which PEFT imports, quantized or not
    if arguments.quiet or not sys.stderr.isatty():  # bars of the libraries: a log file must hold no redrawn line
        os.environ.setdefault("TQDM_DISABLE", "1")
    level = logging.WARNING if arguments.quiet else logging.DEBUG if arguments.verbose else logging.INFO
    return log_to_stderr(level)
