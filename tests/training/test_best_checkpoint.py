"""The best checkpoint by nll or by generated accuracy, and early stopping: as evaluated, and exact on resume."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import TrainerControl, TrainerState

from balanced_thinking.batch.answering import RowAnswerer
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.data.load import load_data
from balanced_thinking.data.rows import to_dataset
from balanced_thinking.evaluation.benchmarks import Benchmark
from balanced_thinking.evaluation.run import evaluate
from balanced_thinking.models.load import load_model
from balanced_thinking.segments import parse
from balanced_thinking.training.callbacks import format_log_line
from balanced_thinking.training.checks import check_settings
from balanced_thinking.training.early_stopping import EarlyStopping, has_stopped_early
from balanced_thinking.training.recipe import Recipe, make_recipe
from balanced_thinking.training.run import train
from balanced_thinking.training.sft import ScaleSFTTrainer
from balanced_thinking.training.sft_config import ScaleSFTConfig
from balanced_thinking.training.validation_answers import score_validation_answers
from tests.tiny_training import QUIET

DIRECT = {"n": 24, "style": "direct"}


def recipe(metric: str, **training: Any) -> Recipe:
    given = {
        "max_steps": 4,
        "per_device_train_batch_size": 2,
        "logging_steps": 1,
        "disable_tqdm": True,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_steps": 1,
        "save_total_limit": None,
        "load_best_model_at_end": True,
        "metric_for_best_model": metric,
        "gradient_checkpointing": False,
        "reasoning_format": "direct",
        "validation_max_new_tokens": 16,
    }
    return Recipe(
        model="world-base",
        data_options=DIRECT,
        validation_split="validation",
        validation_options=DIRECT | {"n": 8},
        training=given | training,
    )


def evaluations_of(run: Path) -> dict[int, dict[str, float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row for row in rows if "eval_loss" in row}


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_generated_accuracy_is_that_of_the_evaluation(tmp_path: Path) -> None:
    """Also with packing, whose attention is another, and rows that end at different lengths."""
    loaded = load_model("world-base")
    examples = load_data("world", split="test", options=DIRECT).examples
    expected = evaluate(loaded, Benchmark("world", options=DIRECT, format="direct", max_new_tokens=16), split="test")
    assert 0 < expected.accuracy < 1
    args = ScaleSFTConfig(
        str(tmp_path), **QUIET, packing=True, reasoning_format="direct", per_device_eval_batch_size=5,
        validation_generate=100, validation_max_new_tokens=16,
    )  # fmt: skip
    rows = to_dataset(examples, "direct")
    trainer = ScaleSFTTrainer(
        loaded.model, args, train_dataset=rows, eval_dataset=rows, processing_class=loaded.processor
    )
    found = trainer.evaluate()
    assert found["eval_accuracy"] == pytest.approx(expected.accuracy, abs=1e-6)
    assert found["eval_malformed"] == pytest.approx(expected.malformed / expected.n, abs=1e-6)
    before = torch.random.get_rng_state()
    assert score_validation_answers(trainer, rows)["accuracy"] == found["eval_accuracy"]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert trainer.evaluate(rows.select(range(5)))["eval_accuracy"] * 5 == pytest.approx(3)  # of these rows alone
    assert trainer.model.generation_config.eos_token_id is not None  # the model's own settings are back


REASONED = "<think>It is.</think><answer>{}</answer>"
ASKED = [{"role": "user", "content": "Which colour ?"}]
# Each row, an answer of the model, and whether it is right.
SCORED: list[tuple[dict[str, Any], str, bool]] = [
    ({"completion": "red"}, "red", True),
    ({"completion": "red"}, "blue", False),
    ({"completion": "red", "answer": "red", "choices": ["blue", "red"]}, "B", True),  # the letter of its option
    ({"completion": "red", "answer": "red", "alternatives": ["crimson"]}, "crimson", True),
    ({"completion": "red", "answer": None, "choices": None, "alternatives": None}, "red", True),  # a joined table
    ({"beside": "It is.", "completion": "red"}, "red", True),  # the reasoning under a key of its own
    ({"text": True, "completion": "red"}, "red", True),  # a row of texts
    ({"text": True, "completion": "red"}, "green", False),
]


@pytest.mark.parametrize(("given", "answer", "right"), SCORED)
def test_a_validation_answer_is_scored_as_in_an_evaluation(
    given: dict[str, Any], answer: str, right: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model("world-base")
    row, gold, beside = dict(given), given["completion"], given.get("beside")
    reply = {"role": "assistant", "content": gold if beside else REASONED.format(gold)}
    row |= {"prompt": ASKED, "completion": [reply | ({"reasoning_content": beside} if beside else {})]}
    if row.pop("text", False):
        row |= {"prompt": "Which colour ?", "completion": REASONED.format(gold)}
    row.pop("beside", None)
    rows = Dataset.from_list([row])
    args = ScaleSFTConfig(str(tmp_path), **QUIET, validation_generate=1)
    trainer = ScaleSFTTrainer(
        loaded.model, args, train_dataset=rows, eval_dataset=rows, processing_class=loaded.processor
    )
    parsed = parse(REASONED.format(answer))
    monkeypatch.setattr(
        RowAnswerer, "answer_rows", lambda self, batch: [SimpleNamespace(parsed=parsed, stopped=True)] * len(batch)
    )
    assert trainer.evaluate()["eval_accuracy"] == right


@pytest.fixture(scope="module")
def chosen_by_accuracy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("accuracy") / "run"
    train(recipe("accuracy", validation_generate=8, learning_rate=1e-3), run)
    return run


def test_the_best_checkpoint_by_accuracy_is_the_model(chosen_by_accuracy: Path) -> None:
    run, found = chosen_by_accuracy, evaluations_of(chosen_by_accuracy)
    assert all(row["eval_accuracy"] in [k / 8 for k in range(9)] and "eval_malformed" in row for row in found.values())
    assert "of the answers right, " in (format_log_line(1, found[1]) or "")
    best = max(found, key=lambda step: (found[step]["eval_accuracy"], -step))
    assert equal(weights_of(run / "model"), weights_of(run / "checkpoints" / f"checkpoint-{best}"))


def test_a_resumed_run_measures_and_chooses_the_same(chosen_by_accuracy: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(chosen_by_accuracy, run, ignore=shutil.ignore_patterns("model", "checkpoint-2"))
    provenance = json.loads((run / "provenance.json").read_text())
    (run / "provenance.json").write_text(json.dumps({**provenance, "finished": None}))
    train(recipe("accuracy", validation_generate=8, learning_rate=1e-3), run, resume=True)
    names = ("eval_accuracy", "eval_malformed", "eval_answer_nll")
    measured = [
        {step: [row[name] for name in names] for step, row in evaluations_of(one).items()}
        for one in (run, chosen_by_accuracy)
    ]
    assert measured[0] == measured[1]
    assert equal(weights_of(run / "model"), weights_of(chosen_by_accuracy / "model"))


def test_a_lower_answer_nll_is_better_and_early_stopping_is_final(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A learning rate that destroys the model: the first evaluation that is worse ends the training."""
    given = recipe("eval_answer_nll", learning_rate=0.1, max_steps=6, early_stopping_patience=1)
    run = tmp_path / "run"
    train(given, run)
    found = evaluations_of(run)
    best = min(found, key=lambda step: found[step]["eval_answer_nll"])
    assert list(found) == list(range(1, best + 2))
    assert best + 1 < 6
    assert equal(weights_of(run / "model"), weights_of(run / "checkpoints" / f"checkpoint-{best}"))
    provenance = json.loads((run / "provenance.json").read_text())
    assert (provenance["steps"], provenance["stopped_early"]) == (best + 1, True)
    before = (run / "metrics.jsonl").read_text()
    with caplog.at_level("INFO"):
        train(given, run, resume=True)  # it is finished
    assert f"early stopping after step {best + 1}; raise --early_stopping_patience" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO"):
        train(replace(given, training={**given.training, "max_steps": 9}), run, resume=True)  # the patience is the same
    assert f"early stopping after step {best + 1}; raise --early_stopping_patience" in caplog.text
    assert (run / "metrics.jsonl").read_text() == before
    # Killed after the last checkpoint: the same end, without another step.
    shutil.rmtree(run / "model")
    (run / "provenance.json").write_text(json.dumps({**provenance, "finished": None}))
    train(given, run, resume=True)
    assert evaluations_of(run).keys() == found.keys()
    assert equal(weights_of(run / "model"), weights_of(run / "checkpoints" / f"checkpoint-{best}"))


@pytest.mark.parametrize(
    ("values", "greater", "threshold", "ends_at"),
    [
        ([1.0, 2.0, 3.0], False, 0.0, 3),
        ([3.0, 2.0, 1.0], False, 0.0, None),
        ([1.0, 2.0, 3.0], True, 0.0, None),
        ([3.0, 2.9, 2.8], False, 0.5, 3),  # better, but not by enough
        ([1.0, 2.0, 0.5, 2.0, 2.0], False, 0.0, 5),  # the count begins again
        ([float("nan"), 1.0, float("nan"), 2.0], False, 0.0, 4),  # no number is no improvement
    ],
)
def test_when_early_stopping_ends_a_training(
    values: list[float], greater: bool, threshold: float, ends_at: int | None
) -> None:
    state, args = TrainerState(), SimpleNamespace(metric_for_best_model="x", greater_is_better=greater)
    ended = None
    for number, value in enumerate(values, 1):
        control = TrainerControl()
        EarlyStopping(2, threshold).on_evaluate(args, state, control, metrics={"eval_x": value})  # a new one each time
        if control.should_training_stop and ended is None:
            ended = number
    assert ended == ends_at
    assert has_stopped_early(state, 2) == (ends_at == len(values))
    assert not has_stopped_early(state, None)


@pytest.mark.parametrize(
    ("training", "said"),
    [
        (
            {"metric_for_best_model": "acuracy"},
            r"'acuracy' \(did you mean 'accuracy'\?\); an evaluation measures",
        ),
        ({"metric_for_best_model": "eval_accuracy"}, "set validation_generate to a number of rows"),
        ({"metric_for_best_model": "answer_nll", "greater_is_better": True}, "better the lower it is"),
        ({"validation_generate": 5, "eval_strategy": "no"}, "but eval_strategy is 'no'; set it to steps"),
        ({"early_stopping_patience": 2, "eval_strategy": "no"}, "so that nothing is measured"),
        ({"early_stopping_patience": 2}, "nothing says what must improve"),
        ({"early_stopping_threshold": 0.1}, "early_stopping_patience is not; set both"),
        ({"early_stopping_patience": 0}, "expected at least 1"),
        ({"validation_scorer": "exat"}, "exact"),
    ],
)
def test_combinations_that_cannot_be_are_refused(training: dict[str, Any], said: str) -> None:
    keys = {"validation_split": "validation", "training": {"eval_strategy": "steps", **training}}
    with pytest.raises(RecipeError, match=said):
        check_settings(make_recipe(keys, "the recipe"))


def test_a_trainer_that_cannot_answer_is_refused(tmp_path: Path) -> None:
    loaded = load_model("tiny:qwen2")
    rows = Dataset.from_list([{"prompt": "a", "completion": "<think>b</think><answer>c</answer>"}])
    for options, said in (
        ({"early_stopping_patience": 1, "eval_strategy": "steps"}, "nothing says what must improve"),
        ({"early_stopping_patience": 1, "metric_for_best_model": "loss"}, "so that nothing is measured"),
        ({"early_stopping_threshold": 0.1}, "early_stopping_patience is not; set both"),
    ):
        with pytest.raises(ValueError, match=said):
            ScaleSFTConfig(str(tmp_path), **QUIET, **options)
    args = ScaleSFTConfig(str(tmp_path), **QUIET, validation_generate=1)
    with pytest.raises(ValueError, match="no eval_dataset of known length"):
        ScaleSFTTrainer(loaded.model, args, train_dataset=rows, processing_class=loaded.processor)
