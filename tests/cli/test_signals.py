"""What a signal does to a command in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

# A command whose work is replaced by this: it says that it has begun, and takes long.
STAND_IN = """
import os, signal, sys, time
from dataclasses import replace
from balanced_thinking.cli import commands, main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

def run(arguments):
    print("begun", flush=True)
    time.sleep(60)

name = sys.argv[1]
commands.COMMANDS[name] = replace(commands.COMMANDS[name], run=run)
sys.exit(main())
"""


@pytest.mark.parametrize("words", [["report", "x"], ["convert", "world", "--out", "x"]], ids=lambda words: words[0])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_itself(number: signal.Signals, words: list[str]) -> None:
    """So that a shell's loop around it ends, too."""
    command = [sys.executable, "-c", STAND_IN, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == -number
    assert (out, "Traceback" in err) == ("", False)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_shell_sees_130_and_143(number: signal.Signals, code: int, tmp_path: Path) -> None:
    (tmp_path / "stand_in.py").write_text(STAND_IN.replace("time.sleep(60)", f"os.kill(os.getpid(), {int(number)})"))
    script = f"{sys.executable} {tmp_path}/stand_in.py report x; echo $?"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.split()[-1] == str(code), done.stderr
