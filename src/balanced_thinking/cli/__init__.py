"""The command `balanced`. Heavy libraries are imported by the command that needs them, so that `--help` is instant."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from balanced_thinking.cli.commands import read_command_line
from balanced_thinking.cli.ending import run_to_its_end
from balanced_thinking.system.crash import Crash, is_verbose, named_folder, run_with_last_handler, this_command
from balanced_thinking.system.ending import exit_by_signal


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; raises SystemExit, too: 0 for help and 2 for wrong usage.

    The codes are 0 (done), 1 (it ran and failed), 2 (wrong usage: nothing was started), 130 (SIGINT), 143 (SIGTERM).
    Without `argv` the process itself ends by the signal that it met: a shell's loop around the command ends with it.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    crash = Crash(this_command(words), named_folder(words), is_verbose(words))
    return run_with_last_handler(lambda: _run_and_end(words, is_program=argv is None), crash)


def _run_and_end(words: Sequence[str], *, is_program: bool) -> int:
    code, number = run_to_its_end(*read_command_line(words))
    if is_program and number is not None:
        exit_by_signal(number)
    return code
