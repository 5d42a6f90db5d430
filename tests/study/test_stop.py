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

import pytest

from balanced_thinking.runs.ledger import read_ledger
from balanced_thinking.study import run as study_run
from balanced_thinking.study.load import make_study
from balanced_thinking.study.run import prepare_folder, run_study
from balanced_thinking.study.worker import run_missing_parts
from tests.study.helpers import (
    SMALL,
    TIMEOUT_SECONDS,
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

    monkeypatch.setattr(study_run.subprocess, "Popen", start)
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
    process = subprocess.Popen(study_command(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    for _ in range(300):
        if workers(tmp_path / "s"):
            break
        time.sleep(0.1)
    process.terminate()
    _, said = process.communicate(timeout=30)
    assert process.returncode == 143
    assert said.endswith("balanced study: stopped; the same command continues where it stopped\n")
    assert not workers(tmp_path / "s")


ONE_RUN = {**SMALL, "arms": {"sft": SMALL["arms"]["sft"]}, "contrasts": []}
# Where a kill does harm: while a checkpoint, the final model or the predictions are written, and before the ledger.
POINTS = ("checkpoints/checkpoint-2", "seed-0/model/", "world-test/predictions.jsonl", "ledger.jsonl")


def test_a_run_killed_at_its_writes_gives_the_same_results(tmp_path: Path) -> None:
    study = make_study(ONE_RUN)
    (run,) = study.planned_runs()
    for root in (tmp_path / "undisturbed", tmp_path / "killed"):
        prepare_folder(study, root)
        (root / run.name).mkdir(parents=True)
    run_missing_parts(tmp_path / "undisturbed", run)

    root, marker = tmp_path / "killed", tmp_path / "paused"
    command = [sys.executable, "-m", "balanced_thinking.study.worker", str(root), run.name]
    for number, point in zip((signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGTERM), POINTS, strict=True):
        worker = start_paused(command, point, marker)
        worker.send_signal(number)
        assert worker.wait(TIMEOUT_SECONDS) == -number
    assert subprocess.run(command, capture_output=True, text=True, check=False).returncode == 0
    assert fingerprints(root) == fingerprints(tmp_path / "undisturbed")
    assert len(fingerprints(root)) == 2


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
