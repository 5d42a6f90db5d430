"""A training that a signal or its time budget stops: it saves after its step, and continues as the undisturbed one."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

from balanced_thinking.system.signals import StoppedEarly
from balanced_thinking.training.callbacks import MetricsFile
from balanced_thinking.training.grpo_config import ScaleGRPOConfig
from balanced_thinking.training.sft_config import ScaleSFTConfig
from balanced_thinking.training.stopping import StopRequests
from tests.tiny_training import config, trainer

SHAPE: dict[str, Any] = {"per_device_train_batch_size": 2, "max_steps": -1, "num_train_epochs": 2}
CLOCKS = ("runtime", "per_second", "total_flos", "train_loss")  # of one call of `train`


class SignalAt(TrainerCallback):
    """Raises a signal at an event of a step."""

    def __init__(self, event: str, step: int, number: int = signal.SIGTERM) -> None:
        self.step, self.number = step, number
        setattr(self, event, self._raise_signal)

    def _raise_signal(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step and self.number:
            number, self.number = self.number, 0
            signal.raise_signal(number)


def train(rows: Dataset, out: Path, *callbacks: TrainerCallback, **options: Any) -> Any:
    """A run with a held-out loss every three steps and a row of metrics every two; continued where it has stopped."""
    shape = SHAPE | {"logging_steps": 2, "eval_strategy": "steps", "eval_steps": 3, "save_strategy": "no"} | options
    run = trainer("qwen2_5_vl", rows, config(out / "checkpoints", **shape), eval_dataset=rows.select(range(3)))
    for callback in (*callbacks, MetricsFile(out / "metrics.jsonl")):
        run.add_callback(callback)
    out.mkdir(exist_ok=True)
    checkpoints = sorted(out.glob("checkpoints/checkpoint-*"))
    with run.stop_on_signals(run.stopping.began, "continue with: balanced sft --out RUN --resume"):
        run.train(resume_from_checkpoint=str(checkpoints[-1]) if checkpoints else None)
    return run


def metrics(out: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not any(clock in k for clock in CLOCKS)} for row in rows]


@pytest.fixture(scope="module")
def undisturbed(world_rows: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    out = tmp_path_factory.mktemp("undisturbed")
    return train(world_rows, out), out


MOMENTS: list[tuple[str, Callable[[], SignalAt], int]] = [
    ("in the first step", lambda: SignalAt("on_step_begin", 0), 1),
    ("before the update", lambda: SignalAt("on_pre_optimizer_step", 1), 2),
    ("before an evaluation, which is then put off", lambda: SignalAt("on_pre_optimizer_step", 2), 3),
    ("in the last step of an epoch", lambda: SignalAt("on_step_end", 4), 4),
    ("while an epoch begins", lambda: SignalAt("on_epoch_begin", 4), 5),
    ("in an evaluation, which is cut", lambda: SignalAt("on_prediction_step", 6, signal.SIGINT), 6),
    ("in a logging step", lambda: SignalAt("on_log", 6), 6),
]


def stop_training(rows: Dataset, out: Path, callback: SignalAt, step: int) -> None:
    number = callback.number
    said = f"stopped after step {step} of 8; checkpoint-{step} in .* is saved; continue with: balanced sft --out RUN"
    with pytest.raises(StoppedEarly, match=said) as stop:
        train(rows, out, callback)
    assert (stop.value.number, stop.value.by_signal) == (number, True)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert (out / "checkpoints" / f"checkpoint-{step}").is_dir()


def compare_runs(run: Any, out: Path, undisturbed: tuple[Any, Path]) -> None:
    whole, folder = undisturbed
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, run.model.state_dict()[name]), name
    theirs, ours = whole.optimizer.state_dict()["state"], run.optimizer.state_dict()["state"]
    assert all(torch.equal(theirs[key]["exp_avg_sq"], ours[key]["exp_avg_sq"]) for key in theirs)
    assert metrics(out) == metrics(folder)


def test_a_run_that_is_stopped_again_and_again_is_the_undisturbed_one(
    world_rows: Dataset, undisturbed: tuple[Any, Path], tmp_path: Path
) -> None:
    for place in (2, 3, 5):
        stop_training(world_rows, tmp_path, MOMENTS[place][1](), MOMENTS[place][2])
    compare_runs(train(world_rows, tmp_path), tmp_path, undisturbed)


@pytest.mark.faults
@pytest.mark.parametrize(("signalled", "step"), [case[1:] for case in MOMENTS], ids=[case[0] for case in MOMENTS])
def test_a_stopped_run_continues_bit_for_bit(
    signalled: Callable[[], SignalAt], step: int, world_rows: Dataset, undisturbed: tuple[Any, Path], tmp_path: Path
) -> None:
    stop_training(world_rows, tmp_path, signalled(), step)
    compare_runs(train(world_rows, tmp_path), tmp_path, undisturbed)


def test_the_time_budget_keeps_the_longest_step_and_save_in_reserve() -> None:
    requests = StopRequests(max_hours=1.0)
    now = requests.began

    def asked(minutes: float, **about: bool) -> bool:
        requests.began = now - 60 * minutes
        return requests.is_asked(evaluation=about.get("evaluation", False))

    assert [asked(59), asked(61)] == [False, True]
    requests.longest["step"] = 120  # seconds: as long as the save, of which nothing is known yet
    assert [asked(55), asked(57)] == [False, True]
    requests.longest["save"] = 600
    assert [asked(47), asked(49)] == [False, True]
    requests.longest["evaluation"] = 1200
    assert [asked(47), asked(47, evaluation=True)] == [False, True]
    assert StopRequests(None).is_asked(evaluation=True) is False


@pytest.mark.parametrize("hours", [0, -1.0, float("nan")])
def test_a_budget_without_time_is_refused(hours: float, tmp_path: Path) -> None:
    for kind in (ScaleSFTConfig, ScaleGRPOConfig):
        with pytest.raises(ValueError, match=r"max_hours is .*; expected more than 0"):
            kind(output_dir=str(tmp_path), max_hours=hours, use_cpu=True)
