"""Clean-up of a process that is terminated."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from balanced_thinking.study.load import make_study
from balanced_thinking.study.run import prepare_folder
from balanced_thinking.system.ending import clean_up_on_sigterm
from tests.conftest import some_now
from tests.forked import ForkedPython

TRAINING = {"max_steps": 100_000, "per_device_train_batch_size": 2, "use_cpu": True, "save_strategy": "no"}
RECIPE = {"model": "tiny:qwen2_5_vl", "data_options": {"n": 8, "ratio": 5}, "training": TRAINING}


def sft_command(root: Path) -> list[str]:
    (root / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return ["balanced_thinking.cli", "sft", "--config", str(root / "recipe.yaml"), "--out", str(root / "run")]


def worker_command(root: Path) -> list[str]:
    plan = {"arms": {"sft": {}}, "stages": {"sft": RECIPE}, "seeds": [0], "evaluate": {"world": {}}}
    prepare_folder(make_study(plan), root / "study")
    (root / "study/sft/seed-0").mkdir(parents=True)
    return ["balanced_thinking.study.worker", str(root / "study"), "sft/seed-0"]


STARTS: dict[str, Callable[..., Any]] = {"forked": ForkedPython, "new": subprocess.Popen}
COMMANDS = {"sft": sft_command, "worker": worker_command}


@pytest.mark.parametrize(("start", "command"), some_now(lambda *case: case == ("forked", "sft"), STARTS, COMMANDS))
def test_a_terminated_process_deletes_its_temporary_rows(start: str, command: str, tmp_path: Path) -> None:
    words, temporary = COMMANDS[command](tmp_path), tmp_path / "temporary"
    temporary.mkdir()
    process = STARTS[start](
        [sys.executable, "-m", *words],
        env=os.environ | {"TMPDIR": str(temporary), "BALANCED_THINKING_CACHE": str(tmp_path / "store")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            if list(tmp_path.glob("**/provenance.json")):  # it trains
                break
            time.sleep(0.1)
        assert len(list(temporary.glob("balanced-thinking-*/rows.arrow"))) == 1
        process.terminate()
        assert process.wait(10) == -signal.SIGTERM
    finally:
        process.kill()
    assert not list(temporary.glob("balanced-thinking-*"))


def test_a_signal_inside_a_callback_that_catches_exceptions_ends_the_process(tmp_path: Path) -> None:
    """A library's `__del__` or hook would keep an exception to itself, and the training would go on."""
    code = """
import os, pathlib, signal, sys
from balanced_thinking.system.ending import clean_up_on_sigterm, run_at_end

class Swallows:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000): pass

run_at_end(pathlib.Path(sys.argv[1]).touch)
with clean_up_on_sigterm():
    Swallows()
print("it went on")
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "cleaned")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "")
    assert (tmp_path / "cleaned").exists()


def test_a_foreign_handler_stays_and_ours_is_removed() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with clean_up_on_sigterm():
            assert callable(signal.getsignal(signal.SIGTERM))
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with clean_up_on_sigterm():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_command_may_run_in_any_thread() -> None:
    done = []

    def work() -> None:
        with clean_up_on_sigterm():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done


@pytest.mark.parametrize("ended_before", [False, True])
def test_a_process_stops_with_the_parent_that_started_it(ended_before: bool, tmp_path: Path) -> None:
    """Also where that has ended before the process could look."""
    child = f"""
import os, pathlib, sys, time
from balanced_thinking.system.ending import stop_with_parent
parent = int(sys.argv[1])
while {ended_before} and os.getppid() == parent:
    time.sleep(0.02)
pathlib.Path("number").write_text(str(os.getpid()))
pathlib.Path("number").rename("started")
stop_with_parent(parent)
time.sleep(60)
pathlib.Path("survived").touch()
"""
    parent = f"""
import os, pathlib, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {child!r}, str(os.getpid())])
while not {ended_before} and not pathlib.Path("started").exists():
    time.sleep(0.02)
"""
    subprocess.run([sys.executable, "-c", parent], cwd=tmp_path, check=True, timeout=30)
    deadline = time.monotonic() + 30
    while not (tmp_path / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    number = int((tmp_path / "started").read_text())
    while psutil.pid_exists(number) and psutil.Process(number).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "it goes on without its parent"
        time.sleep(0.05)
