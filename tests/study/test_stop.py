"""Signals and kills at any moment: no worker stays behind, and the results do not change."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from balanced_thinking.runs.ledger import read_ledger
from balanced_thinking.study.load import make_study
from balanced_thinking.study.run import run_study
from tests.forked import ForkedPython
from tests.study.helpers import (
    SMALL,
    fingerprints,
    kill_workers,
    start_paused,
    study_command,
    workers,
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_worker_is_started_leaves_none_behind(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, started = subprocess.Popen, []

    def start(*args: Any, **kwargs: Any) -> Any:
        """The signal arrives when the worker lives, and before the study has heard of it."""
        started.append(process := real(*args, **kwargs))
        os.kill(os.getpid(), number)
        return process

    monkeypatch.setattr(subprocess, "Popen", start)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            run_study(make_study(SMALL), tmp_path, jobs=1)
        assert [process.poll() is None for process in started] == [False]
        assert not workers(tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
        kill_workers(tmp_path)


def test_a_terminated_study_leaves_no_worker_behind(tmp_path: Path) -> None:
    with (log := tmp_path / "log").open("wb") as file:
        process = ForkedPython(study_command(tmp_path), stdout=subprocess.DEVNULL, stderr=file)
    for _ in range(300):
        if workers(tmp_path / "s"):
            break
        time.sleep(0.1)
    process.terminate()
    assert process.wait(30) == 143
    assert log.read_text().endswith("balanced study: stopped; the same command continues where it stopped\n")
    assert not workers(tmp_path / "s")


# Stands in for a worker: it takes a while to save after SIGTERM, and says that it has.
SAVING = """
import pathlib, signal, sys, time
folder, seconds = pathlib.Path(sys.argv[1]), float(sys.argv[2])
def save(*_):
    time.sleep(seconds)
    (folder / "saved").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
(folder / "begun").touch()
time.sleep(60)
"""
STUDY = """
import subprocess, sys, time, pathlib
from balanced_thinking.study.stopping import StudyStop
from balanced_thinking.system.logs import log_to_stderr
from balanced_thinking.system.signals import StoppedEarly
folder = pathlib.Path(sys.argv[1])
worker = subprocess.Popen([sys.executable, *sys.argv[4:], str(folder), sys.argv[2]], start_new_session=True)
while not (folder / "begun").exists():
    time.sleep(0.02)
stop = StudyStop([worker], float(sys.argv[3]))
try:
    with log_to_stderr(), stop.stopping_workers():
        print("begun", flush=True)
        while True:
            stop.raise_if_asked()
            time.sleep(0.02)
except StoppedEarly as stopped:
    print(worker.returncode, stopped.number, stopped.by_signal, flush=True)
"""


def start_stand_in(folder: Path, seconds: float, max_hours: float = 1.0) -> subprocess.Popen[str]:
    (folder / "worker.py").write_text(SAVING)
    words = [str(folder), str(seconds), str(max_hours), str(folder / "worker.py")]
    command = [sys.executable, "-c", STUDY, *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_study_waits_until_its_workers_have_saved(number: signal.Signals, tmp_path: Path) -> None:
    with start_stand_in(tmp_path, 1.5) as study:
        study.send_signal(number)
        out, said = study.communicate(timeout=60)
    assert out == f"143 {int(number)} {number == signal.SIGINT}\n"
    first = f"{number.name}: the runs save and stop; a second signal ends them at once\n"
    assert said == f"{first}1 run is still saving\n"
    assert (tmp_path / "saved").exists()


def test_a_second_signal_kills_the_workers_of_a_study(tmp_path: Path) -> None:
    with start_stand_in(tmp_path, 60) as study:
        study.send_signal(signal.SIGINT)
        assert study.stderr
        assert study.stderr.readline().startswith("SIGINT: the runs save and stop")
        study.send_signal(signal.SIGINT)
        _, said = study.communicate(timeout=60)
    assert study.returncode == -signal.SIGINT
    assert said.endswith("ended at once by a second signal; the same command continues from the newest checkpoints\n")
    gone = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path / "worker.py") in (p.info["cmdline"] or ())]
    assert not [process for process in gone if process.status() != psutil.STATUS_ZOMBIE]


def test_the_time_budget_of_a_study_makes_its_runs_save(tmp_path: Path) -> None:
    with start_stand_in(tmp_path, 0, max_hours=0.1 / 3600) as study:
        out, said = study.communicate(timeout=60)
    assert (out, said) == ("143 15 False\n", "the time budget is over: the runs save and stop\n")
    assert (tmp_path / "saved").exists()


@pytest.mark.slow
def test_a_worker_that_outlived_its_study_finishes_and_nothing_is_done_twice(tmp_path: Path) -> None:
    root, marker = tmp_path / "s", tmp_path / "paused"
    study = start_paused(study_command(tmp_path), "checkpoints/checkpoint-2", marker)
    study.kill()
    study.wait()
    (orphan,) = workers(root)
    again = subprocess.Popen(study_command(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while len(workers(root)) < 2:
            assert again.poll() is None, "the second study ended before it started a worker"
            time.sleep(0.05)
        marker.unlink()  # the first worker continues, and the second waits for it
        assert again.wait() == 0
    finally:
        kill_workers(root)
        again.kill()
    assert not orphan.is_running()
    rows = [(row.run, row.part) for row in read_ledger(root, [])]
    assert len(rows) == len(set(rows)) == 4


def killed_and_continued(root: Path, kills: int, rng: random.Random) -> dict[str, str]:
    command = study_command(root)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for _ in range(kills):
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(rng.uniform(1, 20))
        # Sometimes the scheduler alone, so that its workers live on; sometimes the workers, too.
        if rng.random() < 0.5:
            kill_workers(root / "s")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return fingerprints(root / "s")


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2, 20])
def test_kills_at_random_moments_leave_the_same_table(kills: int, tmp_path: Path) -> None:
    run_study(make_study(SMALL), tmp_path / "undisturbed", jobs=1)
    (tmp_path / "killed").mkdir()
    found = killed_and_continued(tmp_path / "killed", kills, random.Random(kills))
    assert found == fingerprints(tmp_path / "undisturbed")
    assert len(found) == 4
