"""Two ranks: one is killed, and the other says so; a signal to one of them stops both. Both continue exactly."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.faults.kinds import KINDS, write_rows
from tests.forked import StartedRank, start_ranks

STEPS = 40
ENVIRONMENT = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
CLOCKS = ("per_second", "runtime", "train_loss", "step_time", "total_flos")


def start_training(run: Path, folder: Path, *more: str) -> list[StartedRank]:
    words = [*KINDS["sft"], "--data", str(folder / "rows.jsonl"), "--out", str(run), "--max_steps", str(STEPS), *more]
    words[words.index("--save_steps") + 1] = "4"
    command = [sys.executable, "-m", "balanced_thinking.cli", *words]
    return start_ranks(command, 2, folder, ENVIRONMENT)


def wait_for_step(run: Path, step: int, ranks: list[StartedRank]) -> None:
    metrics = run / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < step:
        assert all(rank.process.poll() is None for rank in ranks), ranks[0].log.read_text()
        time.sleep(0.01)


def read_result(run: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in row.items() if not any(clock in k for clock in CLOCKS)} for row in rows]
    return load_file(run / "model" / "model.safetensors"), kept


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    write_rows(folder / "rows.jsonl")
    assert [rank.process.wait(600) for rank in start_training(folder / "run", folder)] == [0, 0]
    return read_result(folder / "run")


def resume_and_compare(run: Path, folder: Path, undisturbed: Any) -> None:
    ranks = start_training(run, folder, "--resume")
    assert [rank.process.wait(600) for rank in ranks] == [0, 0], ranks[0].log.read_text()
    weights, rows = read_result(run)
    assert all(torch.equal(weights[name], weight) for name, weight in undisturbed[0].items())
    assert rows == undisturbed[1]


@pytest.mark.faults
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_rank_is_noticed_by_the_other_and_both_resume_exactly(
    killed: int, undisturbed: Any, tmp_path: Path
) -> None:
    write_rows(tmp_path / "rows.jsonl")
    run = tmp_path / "run"
    ranks = start_training(run, tmp_path)
    wait_for_step(run, 9, ranks)
    ranks[killed].process.send_signal(signal.SIGKILL)
    began = time.monotonic()
    assert ranks[1 - killed].process.wait(60) == 1
    said = ranks[1 - killed].log.read_text()
    assert f"rank {killed} is gone (it was killed, or its machine was), so this rank stops, too; the newest " in said
    assert "continue with: balanced sft --out" in said
    assert "Traceback" not in said
    print(f"noticed after {time.monotonic() - began:.1f} s")
    resume_and_compare(run, tmp_path, undisturbed)


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("signalled", [[0], [1], [0, 1]], ids=["the first", "the second", "both"])
def test_a_signal_to_any_rank_stops_all_after_the_same_step(
    signalled: list[int], number: signal.Signals, undisturbed: Any, tmp_path: Path
) -> None:
    write_rows(tmp_path / "rows.jsonl")
    run = tmp_path / "run"
    ranks = start_training(run, tmp_path)
    wait_for_step(run, 6, ranks)
    for rank in signalled:
        ranks[rank].process.send_signal(number)
    codes = [rank.process.wait(120) for rank in ranks]
    assert codes == [-number if rank in signalled else 143 for rank in (0, 1)]
    said = ranks[0].log.read_text()
    assert f"of {STEPS}; checkpoint-" in said
    assert "Traceback" not in said + ranks[1].log.read_text()
    resume_and_compare(run, tmp_path, undisturbed)


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_result(run)[1] if "loss" in row]


@pytest.mark.faults
def test_a_run_of_four_ranks_continues_on_two_and_on_one(tmp_path: Path) -> None:
    """The samples of a step, and so its loss, are those of the undisturbed run. Another number a step is refused."""
    write_rows(tmp_path / "rows.jsonl")
    program = [sys.executable, "-m", "balanced_thinking.cli", *KINDS["sft"], "--data", str(tmp_path / "rows.jsonl")]

    def run(name: str, ranks: int, batch: int, steps: int, *more: str) -> tuple[list[int], str]:
        shape = ["--per_device_train_batch_size", str(batch), "--max_steps", str(steps)]
        ended = start_ranks([*program, *shape, "--out", str(tmp_path / name), *more], ranks, tmp_path, ENVIRONMENT)
        return [rank.process.wait(600) for rank in ended], ended[0].log.read_text()

    constant = ["--lr_scheduler_type", "constant", "--schedule", "constant"]  # the number of steps changes below
    assert run("undisturbed", 4, 1, 8, *constant)[0] == [0] * 4
    assert run("run", 4, 1, 3, *constant)[0] == [0] * 4
    codes, said = run("run", 2, 1, 6, "--resume", *constant)
    assert codes == [2, 2]
    assert "checkpoint-3 was written by 4 ranks, with 4 samples a step; here 2 x 1 x 1" in said
    assert run("run", 2, 2, 6, "--resume", *constant)[0] == [0, 0]
    assert run("run", 1, 4, 8, "--resume", *constant)[0] == [0]
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "undisturbed"), rel=1e-5)
