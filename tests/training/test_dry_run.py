"""A dry run says what a training would do, refuses what it would refuse, and starts nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from balanced_thinking.cli import main
from balanced_thinking.models.find import find_model_source
from balanced_thinking.models.outline import outline_model
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.training.dry_run import count_steps
from balanced_thinking.training.grpo import ScaleGRPOTrainer
from balanced_thinking.training.grpo_config import ScaleGRPOConfig
from tests.cli.tiny_commands import TINY, exit_code
from tests.tiny_training import QUIET, config, trainer


def lines_of(output: str) -> dict[str, str]:
    """Name of a line -> its text."""
    return {name: text.strip() for name, _, text in (line.partition(" ") for line in output.splitlines())}


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_a_dry_run_shows_the_plan_and_writes_no_file(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--lora.r", "4", "--per_device_train_batch_size", "4", "--num_train_epochs", "10", "--warmup_steps", "3"]
    evaluation = ["--validation_split", "validation", "--eval_strategy", "steps", "--eval_steps", "5"]
    evaluation += ["--validation_generate", "2", "--metric_for_best_model", "accuracy"]
    evaluation += ["--early_stopping_patience", "3"]
    assert main(["sft", *TINY, *options, *evaluation, "--validation_options.n", "3", "--dry-run"]) == 0
    assert list(empty.iterdir()) == []
    shown = lines_of(capsys.readouterr().out)
    assert "language 139 thousand, vision 159 thousand, projector 82.3 thousand" in shown["model"]
    assert shown["trains"].startswith(
        "9.73 thousand parameters (2.56 % of the model's), LoRA: rank 4, alpha 8, on lang"
    )
    assert shown["data"] == "world, train: 8 rows, none left out"
    assert shown["steps"] == "20, the first 3 of them warm-up, 10 times through the data"
    assert shown["weights"].startswith("reasoning / answer 1 / 0.1 at step 1, ")
    assert shown["weights"].endswith(", 1 / 1 at step 20")
    answered = "2 of them are answered; ends after 3 without a better accuracy"
    assert shown["evaluates"] == f"every 5 steps, validation: 3 rows, none left out; {answered}"
    assert "ratio 5" in shown["lengths"]
    assert shown["writes"].startswith("runs/sft ")


def test_a_dry_run_of_grpo_counts_generations(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--per_device_train_batch_size", "4", "--num_generations", "4", "--credit", "segment"]
    assert main(["grpo", *TINY, *options, "--num_train_epochs", "1", "--dry-run"]) == 0
    assert list(empty.iterdir()) == []
    shown = lines_of(capsys.readouterr().out)
    assert shown["steps"] == "8, no warm-up, 1 times through the data"
    assert shown["batch"].startswith("4 completions a step")
    assert shown["rewards"] == "1 x accuracy, 0.2 x format"
    assert main(["grpo", *TINY, *options, "--rewards.format", "0.5", "--dry-run"]) == 0  # this drops the default ones
    assert lines_of(capsys.readouterr().out)["rewards"] == "0.5 x format"
    assert shown["weights"] == "reasoning / answer 0.5 / 0.5 at step 1, 0.5 / 0.5 at step 4, 0.5 / 0.5 at step 8"
    assert "tokens a prompt in the median" in shown["lengths"]


def test_what_a_training_refuses_a_dry_run_refuses(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": "a", "question": "What?", "think": "Hm.", "answer": "x"}, {"id": "b", "question": "What?"}]
    Path("my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = ["sft", "--model", "tiny:qwen2", "--data", "my.jsonl", "--dry-run"]
    assert exit_code(own) == 2
    captured = capsys.readouterr()
    assert "no_answer" in captured.err
    assert captured.out == ""
    assert exit_code([*own, "--on_bad_row", "drop"]) == 0
    assert "1 rows, 1 left out (no_answer 1)" in capsys.readouterr().out
    assert exit_code([*own, "--on_bad_row", "drop", "--overflow", "drop", "--max_length", "9"]) == 2  # no row is left
    assert exit_code([*own, "--resume"]) == 2
    assert exit_code([*own, "--learning_rat", "1"]) == 2
    assert exit_code([*own, "--on_bad_row", "drop", "--image_options.max_pixels", "3136"]) == 2  # a tiny model has none
    assert [file.name for file in empty.iterdir()] == ["my.jsonl"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--per_device_train_batch_size 3", "9, no warm-up, 3 times"),  # 3 + 3 + 2 rows
        ("--per_device_train_batch_size 64", "3, no warm-up, 3 times"),  # a step has all 8
        ("--per_device_train_batch_size 3 --dataloader_drop_last true", "6, no warm-up, 3 times"),
        ("--per_device_train_batch_size 3 --max_steps 2", "2, no warm-up, 0.667 times"),
    ],
)
def test_the_passes_of_a_dry_run_are_the_epochs(
    options: str, expected: str, empty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sft", *TINY, *options.split(), "--dry-run"]) == 0
    assert lines_of(capsys.readouterr().out)["steps"] == f"{expected} through the data"


@pytest.mark.parametrize("rows", [7, 8])
@pytest.mark.parametrize(("batch", "accumulation", "epochs"), [(2, 1, 3), (2, 3, 1), (4, 1, 0.5)])
def test_the_steps_are_those_that_the_trainer_counts(
    rows: int, batch: int, accumulation: int, epochs: float, tmp_path: Path, world_rows: Dataset
) -> None:
    given = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    args = config(tmp_path, max_steps=-1, num_train_epochs=epochs, **given)
    one = trainer("qwen2_5_vl", world_rows.select(range(rows)), args)
    expected = one.set_initial_training_values(args, one.get_train_dataloader())[-1]
    assert count_steps("sft", args, rows) == expected


@pytest.mark.parametrize(
    "given",
    [
        {"num_generations": 2},
        {"num_generations": 2, "steps_per_generation": 2, "num_iterations": 2},
        {"num_generations": 4, "gradient_accumulation_steps": 3},
    ],
)
def test_the_steps_of_grpo_are_those_that_the_trainer_counts(given: dict[str, Any], tmp_path: Path) -> None:
    args = ScaleGRPOConfig(str(tmp_path), **QUIET, per_device_train_batch_size=4, num_train_epochs=2, **given)
    model, tokenizer = build_tiny("qwen2")
    rows = [{"prompt": [{"role": "user", "content": str(n)}], "answer": "1", "choices": []} for n in range(9)]
    one = ScaleGRPOTrainer(model, args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    expected = one.set_initial_training_values(args, one.get_train_dataloader())[-1]
    assert count_steps("grpo", args, 9) == expected


def test_an_outline_has_the_shapes_of_the_model_and_no_memory() -> None:
    model = outline_model("world-base")
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert Path(find_model_source("world-base")).is_dir()
