"""Lack of memory in a training: what is said, and a smaller micro-batch in the same run."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.runs.paths import RunFiles
from balanced_thinking.training.auto_batch import (
    Division,
    divide_smaller,
    is_same_but_divided,
    keep_found_division,
    read_division,
    refuse_inexact_division,
    refuse_several_ranks,
)
from balanced_thinking.training.grpo_division import divide_generation_state
from balanced_thinking.training.memory_shortage import BatchShape, FittedShapes, Shortage, TrainingMemoryError
from balanced_thinking.training.memory_watch import MemoryWatch
from balanced_thinking.training.recipe import Recipe, describe_changes, load_recipe
from balanced_thinking.training.run import train
from balanced_thinking.training.sft_config import ScaleSFTConfig
from tests.conftest import some_now
from tests.tiny_training import config, trainer

TORCH_SAYS = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
TORCH_SAYS += "allocate 8589934592 bytes. Error code 12 (Cannot allocate memory)"


@pytest.mark.parametrize(
    ("micro_batch", "smaller"),
    [(8, (4, 2)), (6, (3, 2)), (3, (1, 3)), (9, (3, 3)), (7, (1, 7)), (2, (1, 2)), (1, None)],
)
def test_a_micro_batch_is_divided_without_a_rest(micro_batch: int, smaller: tuple[int, int] | None) -> None:
    assert Division(micro_batch, 1).smaller() == smaller


def test_a_generation_batch_stays() -> None:
    settings = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "steps_per_generation": 6}
    recipe = Recipe(stage="grpo", training=settings)
    found = divide_smaller(recipe).training
    assert found["per_device_train_batch_size"] * found["steps_per_generation"] == 24
    assert read_division(found) == (2, 4)
    assert "steps_per_generation" not in divide_smaller(Recipe()).training  # follows the accumulation
    default = ScaleSFTConfig(output_dir="x", report_to="none", use_cpu=True)
    assert read_division({}) == (default.per_device_train_batch_size, default.gradient_accumulation_steps)


def test_a_resumed_run_keeps_the_micro_batch_that_fits() -> None:
    recipe = Recipe(auto_batch=True, training={"per_device_train_batch_size": 8, "learning_rate": 0.1})
    saved = divide_smaller(divide_smaller(recipe))
    assert keep_found_division(saved, recipe).training == saved.training
    assert describe_changes(saved, recipe, ()) == []
    other = replace(recipe, training=recipe.training | {"learning_rate": 0.2})
    assert [line.split()[0] for line in describe_changes(saved, other, ())] == ["training.learning_rate"]
    for changed in (
        replace(recipe, auto_batch=False),
        replace(recipe, training={"per_device_train_batch_size": 16}),  # another global batch
        replace(recipe, training={"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}),  # smaller
    ):
        assert not is_same_but_divided(saved, changed)
        assert keep_found_division(saved, changed) is changed


@pytest.mark.parametrize(
    ("arguments", "auto_batch", "said"),
    [
        ({"auto_find_batch_size": True}, False, "auto_batch: true, which keeps the global batch"),
        ({"loss_type": "bnpo"}, True, "loss_type bnpo"),
        ({"dataloader_drop_last": True}, True, "dataloader_drop_last True"),
        ({"top_entropy_quantile": 0.5}, True, "top_entropy_quantile 0.5"),
        ({"top_entropy_quantile": 1.0, "entropy_coef": 0.0, "use_adaptive_entropy": False}, True, None),
        ({"entropy_coef": 0.1}, True, "entropy_coef 0.1"),
        ({"use_adaptive_entropy": True}, True, "use_adaptive_entropy True"),
        ({"top_entropy_quantile": 0.5, "entropy_coef": 0.1}, False, None),
        ({"loss_type": "bnpo", "dataloader_drop_last": True}, False, None),
        ({"loss_type": "dapo"}, True, None),
    ],
)
def test_a_division_that_is_not_exact_is_refused(arguments: dict[str, Any], auto_batch: bool, said: str | None) -> None:
    if said is None:
        refuse_inexact_division(auto_batch, arguments)
        return
    with pytest.raises(RecipeError, match=said):
        refuse_inexact_division(auto_batch, arguments)


def test_several_ranks_are_refused() -> None:
    refuse_several_ranks(True, 1)
    refuse_several_ranks(False, 8)
    with pytest.raises(RecipeError, match="one process, and this training has 2"):
        refuse_several_ranks(True, 2)


LONG = BatchShape(4, 900, 2, ("a", "b", "c", "d"), (10, 900, 30, 20))
ONE = BatchShape(1, 900, 0, ("b",), (900,))
FITTED = FittedShapes(BatchShape(4, 600), 700)


@pytest.mark.parametrize(
    ("shortage", "parts"),
    [
        (
            Shortage("out of memory", "training in step 3", LONG, Division(4, 2), FITTED),
            [
                "of memory while training in step 3: 4 x 900 tokens with 2 pictures, the longest b (900), c (30), d",
                "So far 4 x 600 tokens were the most that fitted",
                "per_device_train_batch_size 2 (is 4) and gradient_accumulation_steps 4 (is 2), which trains the same",
            ],
        ),
        (
            Shortage("no memory", "x", ONE, Division(1, 8), FITTED, lambda length: f"12 rows above {length}"),
            ["A single sample does not fit. 700 tokens did fit: set max_length 700", "(12 rows above 700)", "1 x 900"],
        ),
        (Shortage("no memory", "x", ONE, Division(1, 8)), ["Set a smaller max_length; or train an adapter (lora.r)"]),
        (
            Shortage("no memory", "x", ONE, Division(1, 8), FITTED, length_option="max_completion_length"),
            ["Set a smaller max_completion_length"],
        ),
        (Shortage("no memory", "saving", None, Division(4, 1), other_cure="Save less."), ["while saving. Save less."]),
    ],
)
def test_what_would_fit_is_said(shortage: Shortage, parts: list[str]) -> None:
    said = shortage.describe()
    assert all(part in said for part in parts), said


class Memory:
    """Raises torch's own error in the forward of a micro-batch with more rows than fit, from a call on."""

    def __init__(self, rows: int, calls: int = 0) -> None:
        self.rows, self.calls, self.refused = rows, calls, 0

    def __call__(self, module: Any, inputs: Any, output: Any) -> None:
        self.calls -= 1
        torch.rand(1)
        if module.training and self.calls < 0 and len(output) > self.rows:
            self.refused += 1
            raise RuntimeError(TORCH_SAYS)


def test_a_step_that_does_not_fit_names_its_rows_and_the_cure(world_rows: Dataset, tmp_path: Path) -> None:
    rows = world_rows.remove_columns("images")
    run = trainer("qwen2", rows, config(tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=2))
    run.model.model.norm.register_forward_hook(Memory(2))
    with pytest.raises(TrainingMemoryError) as caught:
        run.train()
    said = str(caught.value)
    assert said.startswith(
        "out of memory: 8.0 GiB were needed at once while training in step 1, micro-batch 1 of 2: 4 x"
    )
    assert "per_device_train_batch_size 2 (is 4) and gradient_accumulation_steps 4 (is 2)" in said
    assert sum(name in said for name in rows["id"]) == 3
    run.args.per_device_train_batch_size = 1  # as if one sample did not fit: the shorter ones did
    run.fitted.longest = 60
    with pytest.raises(TrainingMemoryError, match=r"60 tokens did fit: set max_length 60 .*about [1-8] of 8 rows"):
        run.train()


RECIPE = Recipe(
    model="tiny:qwen2",
    auto_batch=True,
    training={
        "schedule": "cosine",
        "max_steps": 5,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "logging_steps": 2,
        "save_strategy": "no",
        "learning_rate": 1e-3,
        "use_cpu": True,
        "seed": 3,
        "disable_tqdm": True,
    },
)


def _trained(out: Path) -> dict[str, torch.Tensor]:
    return load_file(RunFiles(out).model / "model.safetensors")


def _losses(out: Path) -> list[float]:
    rows = map(json.loads, RunFiles(out).metrics.read_text().splitlines())
    return [row["loss"] for row in rows if "loss" in row]


@pytest.mark.parametrize("calls", some_now((3).__eq__, [0, 3]))
def test_a_halved_micro_batch_is_the_same_run(
    calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """From the first step it is the run with the small micro-batch, bit for bit; from a later one to rounding."""
    memory, start, copy_step_end, kept = Memory(2, calls), MemoryWatch.train, MemoryWatch._copy_step_end, []

    def copy_and_keep(self: Any) -> dict[str, Any]:
        kept.append(copy_step_end(self))
        return kept[-1]

    def train_with_little(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.model.get_input_embeddings().register_forward_hook(memory)
        return start(self, *args, **kwargs)

    lines = [
        json.dumps(
            {"id": f"r{i}", "question": f"Is {i} red?", "think": "It is a number. " * (1 + i % 5), "answer": "no"}
        )
        for i in range(16)
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(lines))
    large = replace(RECIPE, data=str(data))
    small = replace(large, training=RECIPE.training | {"per_device_train_batch_size": 2})
    small.training["gradient_accumulation_steps"] = 4
    train(small, tmp_path / "small")
    monkeypatch.setattr(MemoryWatch, "train", train_with_little)
    monkeypatch.setattr(MemoryWatch, "_copy_step_end", copy_and_keep)
    with caplog.at_level(logging.WARNING):
        train(large, tmp_path / "large")
    assert memory.refused == 1
    said = [record.getMessage() for record in caplog.records if "the run goes on with" in record.getMessage()]
    assert len(said) == 1
    assert f"step {1 + calls // 2}, micro-batch {1 + calls % 2} of 2: 4 x" in said[0]
    assert said[0].endswith("per_device_train_batch_size 2 and gradient_accumulation_steps 4")
    if calls:  # the state at the end of step 1, whatever the failed step drew
        saved = torch.load(RunFiles(tmp_path / "large").checkpoints / "checkpoint-1/rng_state.pth", weights_only=False)
        assert torch.equal(saved["cpu"], kept[0]["random"]["cpu"])
    expected, found = _trained(tmp_path / "small"), _trained(tmp_path / "large")
    for name, value in expected.items():
        if calls == 0:
            assert torch.equal(value, found[name]), name
        else:
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=5e-5)
    assert _losses(tmp_path / "large") == pytest.approx(_losses(tmp_path / "small"), rel=1e-5)
    assert len(_losses(tmp_path / "large")) == 2
    assert load_recipe(RunFiles(tmp_path / "large").config).training["per_device_train_batch_size"] == 2


def test_completions_are_divided_as_trl_would_have() -> None:
    about = {"micro_step": 3, "ranks": 1, "per_device_train_batch_size": 4, "num_iterations": 2}
    about |= {"steps_per_generation": 2, "gradient_accumulation_steps": 1}
    grids = torch.tensor([[1, 2, 2]] * 4)
    inputs = [
        {
            "completion_ids": torch.arange(8).reshape(4, 2) + 10 * k,
            "row_ids": [f"{k}{i}" for i in range(4)],
            "pixel_values": torch.arange(16.0).reshape(16, 1),
            "image_grid_thw": grids,
            "num_images": [1, 1, 1, 1],
            "num_items_in_batch": torch.tensor(7),
            "old_per_token_logps": None,
        }
        for k in (0, 1)
    ]
    wanted = about | {"micro_step": 6, "per_device_train_batch_size": 2}
    wanted |= {"steps_per_generation": 4, "gradient_accumulation_steps": 2}
    found = divide_generation_state({"about": about, "inputs": inputs}, wanted)
    assert found["about"] == wanted
    assert [part["row_ids"] for part in found["inputs"]] == [["00", "01"], ["02", "03"], ["10", "11"], ["12", "13"]]
    assert found["inputs"][3]["completion_ids"].tolist() == [[14, 15], [16, 17]]
    assert found["inputs"][1]["pixel_values"].flatten().tolist() == list(range(8, 16))
    assert all(part["num_items_in_batch"] == 7 for part in found["inputs"])
    for other in (about, wanted | {"ranks": 2}, wanted | {"micro_step": 5}):  # nothing to do, or another training
        same = {"about": about, "inputs": inputs}
        assert divide_generation_state(same, other) is same
