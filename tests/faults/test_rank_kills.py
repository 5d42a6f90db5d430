"""Two ranks: where one is killed the other stops soon and says so, and both resume exactly."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults.kills import SAVE_BEGINS, run_reference
from tests.faults.kinds import Training, make_training
from tests.faults.outcome import checkpoint_steps, differences, read_outcome
from tests.faults.ranks import RANKS, STOP_SECONDS, free_port, random_rank_kill, run_ranks
from tests.faults.tally import Tally, scaled_count

TRIALS, LAUNCHED = 10, 2  # forked ranks; ranks of torchrun
_SAYS = re.compile(r"rank \d+ is gone|another process of this run failed")


def judge(trial: Any, killed: int) -> list[str]:
    """What is wrong with how the other ranks ended."""
    wrong = []
    for rank, ended in enumerate(trial.ranks):
        if rank == killed:
            continue
        if ended.code == 0:
            wrong.append(f"rank {rank} ended as if nothing had happened")
        if ended.crashed:
            wrong.append(f"rank {rank} ended in a traceback")
        if not _SAYS.search(ended.text):
            wrong.append(f"rank {rank} does not say why it stopped")
    return wrong


@pytest.mark.faults
def test_a_killed_rank_stops_the_other_and_both_resume_bitwise(tmp_path: Path) -> None:
    run_reference("sft", tmp_path)  # prepares this process
    tally, reference = Tally("kills-two-ranks"), make_training("sft", tmp_path / "reference")
    began = time.monotonic()
    ended = run_ranks(reference, None)
    seconds = time.monotonic() - began
    assert [rank.code for rank in ended.ranks] == [0] * RANKS, ended.text[-3000:]
    outcome = read_outcome(reference.run)
    for name in tally.open_trials(scaled_count(TRIALS)):
        rng = random.Random(int(name))
        while True:
            shutil.rmtree(tmp_path / "trial", ignore_errors=True)
            training, kill = make_training("sft", tmp_path / "trial"), random_rank_kill(rng, seconds, SAVE_BEGINS)
            try:
                first = run_ranks(training, kill)
            except TimeoutError as error:
                tally.add(name, kill=kill.describe(), passed=False, wrong=[f"it lived on: {error}"])
                break
            if not first.ranks[kill.rank].killed:
                continue  # it had ended before
            wrong = judge(first, kill.rank)
            again = run_ranks(training, None, "--resume")
            codes = [rank.code for rank in again.ranks]
            wrong += [f"the resume ended with {codes}"] if any(codes) else differences(training.run, outcome)
            about = {"kill": kill.describe(), "seconds": round(first.seconds_after, 1), "passed": not wrong}
            said = (first.text[-1500:] + "\n==== resumed\n" + again.text[-1500:]) if wrong else ""
            tally.add(name, **about, **({"wrong": wrong, "said": said} if wrong else {}))
            break
    assert not tally.failures()


def launch(training: Training, *more: str) -> subprocess.Popen[str]:
    words = ["torch.distributed.run", "--nproc_per_node", str(RANKS), "--master_port", str(free_port())]
    command = [sys.executable, "-m", *words, "-m", "balanced_thinking.cli", *training.words(*more)]
    output = training.output.open("w")
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    return subprocess.Popen(command, stdout=output, stderr=output, text=True, env=environment, start_new_session=True)


def wait_for_step(training: Training, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while step > max(checkpoint_steps(training.run), default=0):
        assert process.poll() is None, training.output.read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.faults
@pytest.mark.parametrize("victim", range(LAUNCHED))
def test_a_launcher_ends_when_a_rank_is_killed(victim: int, tmp_path: Path) -> None:
    tally = Tally("kills-launched-ranks")
    reference = make_training("sft", tmp_path / "reference")
    assert launch(reference).wait(300) == 0, reference.output.read_text()[-3000:]
    training = make_training("sft", tmp_path / "trial")
    process = launch(training)
    try:
        wait_for_step(training, 2, process)
        ranks = [p for p in psutil.Process(process.pid).children(recursive=True) if "LOCAL_RANK" in p.environ()]
        (chosen,) = [rank for rank in ranks if rank.environ()["LOCAL_RANK"] == str(victim)]
        chosen.kill()
        began = time.monotonic()
        code = process.wait(STOP_SECONDS)
        seconds = time.monotonic() - began
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    said, wrong = training.output.read_text(), []
    if code == 0:
        wrong.append("the launcher ended with 0")
    if not _SAYS.search(said):
        wrong.append("nobody says why it stopped")
    assert launch(training, "--resume").wait(300) == 0, training.output.read_text()[-3000:]
    wrong += differences(training.run, read_outcome(reference.run))
    about = {"kill": f"rank {victim}", "seconds": round(seconds, 1), "passed": not wrong}
    tally.add(str(victim), **about, **({"wrong": wrong, "said": said[-1500:]} if wrong else {}))
    assert not wrong
