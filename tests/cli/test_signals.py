"""What a signal does to a command in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
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


# The first signal is noted and reported, and a computation in C goes on; what follows says how it ended.
GRACEFUL = """
import hashlib, sys
from balanced_thinking.system.ending import run_at_end
from balanced_thinking.system.signals import GracefulStop

run_at_end(lambda: print("cleaned", flush=True))
stop = GracefulStop(lambda name: print("first", name, flush=True), "ended at once")
stop.start()
print("begun", flush=True)
hashlib.pbkdf2_hmac("sha256", b"", b"", int(sys.argv[1]))
stop.close()
print("noted", stop.number, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_computation_in_c(number: signal.Signals) -> None:
    command = [sys.executable, "-c", GRACEFUL, str(10**9)]  # many minutes
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        assert process.stdout.readline() == f"first {number.name}\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (-number, "cleaned\n", "\nended at once\n")


def test_a_first_signal_is_noted_and_the_work_goes_on() -> None:
    command = [sys.executable, "-c", GRACEFUL, str(10**6)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "first SIGTERM\nnoted 15\ncleaned\n", "")


# As torch's loader starts its workers: a process of multiprocessing's that is forked after the signals were taken over.
WORKER = """
import multiprocessing, os, signal, sys, time
from balanced_thinking.system.signals import GracefulStop, shield_worker

def work():
    shield_worker(None, 0)
    print(os.getpid(), flush=True)
    time.sleep(60)

stop = GracefulStop(lambda name: print(name, flush=True))
stop.start()
worker = multiprocessing.get_context("fork").Process(target=work)
worker.start()
for _ in sys.stdin:
    print(worker.is_alive(), stop.number, flush=True)
worker.terminate()
worker.join(10)
print("end", worker.exitcode, flush=True)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="macOS has no sigtimedwait and no /proc")
def test_a_worker_ends_with_its_parent_and_by_nobody_else() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", WORKER], text=True, **pipes) as process:
        assert process.stdin
        assert process.stdout
        worker = int(process.stdout.readline())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            os.kill(worker, number)
            _wait_until_taken(worker)
        process.stdin.write("alive?\n")
        process.stdin.flush()
        assert process.stdout.readline() == "True None\n"  # nor did the parent count them
        out, err = process.communicate(timeout=60)
    assert (out, err) == ("end 0\n", "")


def _wait_until_taken(process: int) -> None:
    """Until no signal waits for the process: a second one of its kind would be lost."""
    status = Path(f"/proc/{process}/status")
    while "ShdPnd:\t0000000000000000" not in status.read_text():
        time.sleep(0.01)
