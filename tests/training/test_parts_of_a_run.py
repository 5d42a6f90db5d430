"""Runs with a quantized base and with frozen parts: trained, saved, resumed to the bit, evaluated, used by GRPO."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from balanced_thinking.cli import main
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.models.freezing import freeze_parts
from balanced_thinking.models.load import load_model
from balanced_thinking.models.parts import ModelParts
from balanced_thinking.models.quantization import quantization_of
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.training.checks import check_settings
from balanced_thinking.training.model import load_training_model
from balanced_thinking.training.recipe import Recipe, make_recipe
from balanced_thinking.training.run import train
from balanced_thinking.training.sft import ScaleSFTTrainer
from tests.cli.tiny_commands import LEARNING
from tests.tiny_training import config

QUIET: dict[str, Any] = {
    "max_steps": 2,
    "save_steps": 1,
    "schedule": "cosine",
    "per_device_train_batch_size": 2,
    "logging_steps": 1,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
}


def recipe(**keys: Any) -> Recipe:
    training = QUIET | keys.pop("training", {})
    return Recipe(model="tiny:qwen2_5_vl", data_options={"n": 8, "ratio": 5}, training=training, **keys)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = [*folder.glob("adapter_model.safetensors"), *folder.glob("model.safetensors")]
    return load_file(file)


def resumed(given: Recipe, run: Path, copy: Path) -> dict[str, torch.Tensor]:
    """The weights of the run continued from its first step."""
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("model", "checkpoint-2"))
    provenance = json.loads((copy / "provenance.json").read_text())
    provenance.pop("finished", None)
    (copy / "provenance.json").write_text(json.dumps(provenance))
    return weights_of(train(given, copy, resume=True))


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


@pytest.fixture(scope="module", params=["nf4", pytest.param("int8", marks=pytest.mark.slow)])
def quantized(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    run = tmp_path_factory.mktemp(request.param) / "run"
    train(recipe(quantization=request.param, lora={"r": 4}), run)
    return request.param, run


def test_a_quantized_run_remembers_its_base_and_resumes_to_the_bit(quantized: tuple[str, Path], tmp_path: Path) -> None:
    name, run = quantized
    assert quantization_of(run / "model") == quantization_of(run / "checkpoints" / "checkpoint-1") == name
    assert f"quantization: {name}" in (run / "config.yaml").read_text()
    trained = weights_of(run / "model")
    assert {value.dtype for value in trained.values()} == {torch.float32}  # TRL would round them to bfloat16
    moved = [bool(value.abs().sum()) for name, value in trained.items() if "lora_B" in name]
    assert moved
    assert all(moved)
    assert_equal(resumed(recipe(quantization=name, lora={"r": 4}), run, tmp_path / "again"), trained)


def test_a_quantized_run_is_evaluated_dense_and_quantized(
    quantized: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, run = quantized
    base = ["eval", "--model", str(run), "--data", "world", "--limit", "2", "--max-new-tokens", "4"]
    assert main([*base, "--out", str(tmp_path / "dense")]) == 0
    assert main([*base, "--quantization", name, "--out", str(tmp_path / "as-trained")]) == 0
    kinds = [json.loads((tmp_path / out / "summary.json").read_text())["dtype"] for out in ("dense", "as-trained")]
    assert kinds == ["float32", f"float32/{name}"]


def test_grpo_starts_from_a_quantized_run(
    quantized: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, run = quantized
    out = tmp_path / "grpo"
    options = ["--data_options.n", "8", "--max_steps", "1", "--lora.r", "4", "--gradient_checkpointing", "false"]
    more = ["--quantization", "nf4"] if name == "nf4" else []
    assert main(["grpo", "--model", str(run), *options, *LEARNING, *more, "--out", str(out)]) == 0
    assert quantization_of(out / "model") == (name if more else None)
    assert ("which rounds what the adapter has learned" in capsys.readouterr().err) == bool(more)


@pytest.mark.parametrize("frozen", [["vision", "projector"], pytest.param(["language"], marks=pytest.mark.slow)])
def test_frozen_parts_stay_and_the_others_learn(
    frozen: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    resumes = frozen == ["vision", "projector"]
    given = recipe(freeze=frozen, training={} if resumes else {"max_steps": 1, "save_strategy": "no"})
    with caplog.at_level(logging.INFO, "balanced_thinking"):
        folder = train(given, tmp_path / "run")
    assert f"frozen parameters: {frozen[0]} 1" in caplog.text
    before = build_tiny("qwen2_5_vl", seed=42)[0]
    parts, trained = ModelParts(before), load_model(str(folder)).model.state_dict()
    changed = {parts.find_part(name) for name, value in before.state_dict().items() if (value != trained[name]).any()}
    assert changed == {"language", "vision", "projector"} - {*frozen}
    if resumes:
        assert_equal(resumed(given, tmp_path / "run", tmp_path / "again"), weights_of(folder))


def test_a_text_without_a_picture_can_be_among_rows_for_a_tower_alone(tmp_path: Path) -> None:
    data = tmp_path / "text.jsonl"
    row = {"question": "What is it?", "think": "Hm.", "answer": "x"}
    data.write_text("".join(json.dumps({"id": str(n), **row}) + "\n" for n in range(4)))
    training = QUIET | {"max_steps": 1, "save_strategy": "no"}
    one = Recipe(model="tiny:qwen2_5_vl", data=str(data), freeze=["language"], training=training)
    assert (train(one, tmp_path / "run") / "config.json").is_file()


def test_a_step_without_a_picture_leaves_the_tower_as_it_is(world_rows: Dataset, tmp_path: Path) -> None:
    """By momentum and weight decay AdamW would move it: the blank picture's gradients are zero, not absent."""
    found = []
    for steps in (1, 2):
        model, processor = build_tiny("qwen2_5_vl", seed=0)
        freeze_parts(model, ["language"])
        rows = world_rows.select(range(2)).map(
            lambda row, i: {"images": row["images"] if i == 0 else []}, with_indices=True
        )
        about = {"max_steps": steps, "learning_rate": 1e-2, "lr_scheduler_type": "constant", "weight_decay": 0.1}
        args = config(
            tmp_path / str(steps), per_device_train_batch_size=1, train_sampling_strategy="sequential", **about
        )
        ScaleSFTTrainer(model, args, train_dataset=rows, processing_class=processor).train()
        found.append({name: value.clone() for name, value in model.state_dict().items()})
    started = build_tiny("qwen2_5_vl", seed=0)[0].state_dict()
    assert any((found[0][name] != value).any() for name, value in started.items())
    assert_equal(found[1], found[0])


@pytest.mark.parametrize(
    ("frozen", "said"),
    [
        (["vision"], "freeze has 'vision', but the model has no such part; it has: language"),
        (["language"], "these are all parts of the model"),
    ],
)
def test_parts_that_cannot_be_frozen_are_refused(frozen: list[str], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        freeze_parts(build_tiny("qwen2")[0], frozen)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"freeze": "visoin"}, r"freeze has 'visoin' \(did you mean 'vision'\?\); known: language, vision, projector"),
        ({"freeze": ["vision"], "lora": {}}, "leave freeze out, and say with lora.targets"),
        ({"freeze": ["language"], "stage": "grpo"}, "which GRPO trains"),
        ({"quantization": "nf4"}, r"train an adapter \(--lora.r 16\)"),
        ({"quantization": "nf5", "lora": {}}, "known: nf4, int8, or null"),
        (
            {"quantization": "nf4", "lora": {}, "model_options": {"quantization_config": {}}},
            "model_options.quantization_config is set, too",
        ),
    ],
)
def test_combinations_that_cannot_be_are_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        check_settings(make_recipe(keys, "the recipe"))


@pytest.mark.parametrize("launched", ["FSDP", "DEEPSPEED", "by the recipe"])
def test_a_sharded_quantized_model_is_refused(launched: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if launched != "by the recipe":
        monkeypatch.setenv(f"ACCELERATE_USE_{launched}", "true")
    args = SimpleNamespace(fsdp=launched == "by the recipe", deepspeed=None, seed=0)
    said = "quantization is 'nf4', which is not supported with FSDP or DeepSpeed; start the ranks without them"
    with pytest.raises(RecipeError, match=said):
        load_training_model(make_recipe({"quantization": "nf4", "lora": {}}, "the recipe"), args, tmp_path)


def test_a_quantized_model_in_a_sharded_trainer_of_ones_own_is_refused(
    world_rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = build_tiny("qwen2")
    model.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    monkeypatch.setattr(ScaleSFTTrainer, "_is_sharded", lambda self: True)
    rows = world_rows.remove_columns("images")
    with pytest.raises(RecipeError, match="quantization is 'int8', which is not supported with FSDP or DeepSpeed"):
        ScaleSFTTrainer(model, config(tmp_path), train_dataset=rows, processing_class=processor)
