"""Estimates move as they must, what cannot be estimated is refused by name, and the command ends as it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from balanced_thinking.cli import main
from balanced_thinking.config.errors import UsageError
from balanced_thinking.estimate import devices, memory
from balanced_thinking.estimate.advice import advise
from balanced_thinking.estimate.memory import estimate_memory
from balanced_thinking.estimate.model import sketch_model
from balanced_thinking.estimate.plan import Plan
from balanced_thinking.estimate.run import Question, estimate_plan, find_needed_memory, trace
from balanced_thinking.estimate.workload import make_batch
from tests.estimate.test_sizes import plan_of

_LENGTHS = (40, 90, 60, 200)
_PICTURE = 56


def needed(plan: Plan) -> int:
    """Bytes of a device for samples of these lengths with a picture each."""
    model = sketch_model(plan).model
    batch = make_batch(plan, model, _LENGTHS, _PICTURE)
    return estimate_memory(plan, model, trace(plan, model, batch.inputs)).total


def test_each_way_to_save_memory_saves_some(tmp_path: Path) -> None:
    padded = {"per_device_train_batch_size": 4, "gradient_checkpointing": False}
    packed = padded | {"packing": True}
    recomputed = packed | {"gradient_checkpointing": True}
    low = {"model_options": {"dtype": "bfloat16"}, "lora": {"r": 4}}
    sizes = [
        needed(plan_of(tmp_path, training=padded)),
        needed(plan_of(tmp_path, training=packed)),
        needed(plan_of(tmp_path, training=recomputed)),
        needed(plan_of(tmp_path, training=recomputed, **low)),
        needed(plan_of(tmp_path, training=recomputed, quantization="nf4", **low)),
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)


def test_a_cpu_with_avx512_needs_more_for_the_framework(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(tmp_path, gpu="cpu", training={"per_device_train_batch_size": 4})
    needs = {}
    for capability in ("AVX512", "AVX2", "DEFAULT"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda found=capability: found)
        needs[capability] = needed(plan)
    assert needs["AVX512"] - needs["AVX2"] == 34 * 2**20
    assert needs["AVX2"] == needs["DEFAULT"]


@pytest.mark.parametrize("sharding", ["fsdp2", "zero2", "zero3", "ddp"])
def test_more_gpus_never_need_more_memory_each(sharding: str, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, count=2, sharding=sharding, training={"per_device_train_batch_size": 2})
    model = sketch_model(plan).model
    traced = trace(plan, model, make_batch(plan, model, _LENGTHS[:2], None).inputs)
    sizes = [estimate_memory(replace(plan, count=count), model, traced).total for count in (2, 3, 4, 8, 64)]
    assert sizes == sorted(sizes, reverse=True)


ADVISED = [
    ({}, {}),
    ({"training": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}}, {}),
    ({"lora": {"r": 8, "lora_alpha": 8}}, {"gpu": "t4"}),  # which does not compute in bfloat16
    ({"lora": {"r": 8}, "model_options": {"dtype": "float32"}}, {"count": 2, "sharding": "fsdp2"}),
    ({"freeze": ["vision"]}, {"gpu": "v100", "count": 8, "sharding": "zero2"}),
]


@pytest.mark.parametrize(
    ("keys", "where"),
    [pytest.param(*case, marks=() if case[1].get("gpu") == "t4" else pytest.mark.slow) for case in ADVISED],
)
def test_what_is_advised_needs_the_memory_that_it_says(
    keys: dict[str, Any], where: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_NCCL", 0)  # more than a tiny model saves by several GPUs
    plan = plan_of(tmp_path, **where, **keys)
    tiny = replace(plan, device=replace(plan.device, memory_bytes=2**20))
    question, samples = Question(lengths=(80, 200), picture_side=_PICTURE), plan.step_samples
    for change in advise(estimate_plan(tiny, question), question):
        option = change.option
        if option.startswith("--"):
            words = option.partition(", ")[0].split()
            where = where | dict(zip((word[2:] for word in words[::2]), words[1::2], strict=True))
            option = option.partition(", ")[2]
        for name, value in yaml.safe_load(f"{{{option}}}").items():
            is_key = name in vars(plan.recipe)
            keys = keys | ({name: value} if is_key else {"training": {**keys.get("training", {}), name: value}})
        following = plan_of(tmp_path, **where | {"count": int(where.get("count", 1))}, **keys)
        assert find_needed_memory(following, question).memory.total == change.total_bytes, change.option
        assert following.step_samples == samples or f"{following.step_samples} samples then" in change.why
        samples = following.step_samples
    assert following.device.has_bfloat16 or following.autocast == torch.float16


def test_an_epoch_of_weighted_sets_has_the_steps_of_its_training(tmp_path: Path) -> None:
    sets = [
        {"data": name, "weight": weight, "data_options": {"n": 12}}
        for name, weight in (("world", 1), ("world-text", 3))
    ]
    plan = plan_of(tmp_path, data=sets, training={"per_device_train_batch_size": 2, "num_train_epochs": 1})
    found = estimate_plan(plan, Question())
    assert (found.workload.rows, found.speed.steps) == (48, 24)  # each row of the second set occurs three times


REFUSED = [
    ({"stage": "grpo"}, {}, "of sft only"),
    ({"training": {"optim": "lomo"}}, {}, "optim is 'lomo', whose state is not known"),
    ({"model_options": {"attn_implementation": "eager"}}, {}, "keeps all scores"),
    ({"training": {"activation_offloading": True}}, {}, "activation_offloading is true"),
    ({}, {"gpu": "cpu", "count": 2}, "this machine alone"),
    ({"quantization": "nf4", "lora": {}}, {"count": 2, "sharding": "fsdp2"}, "refuses with fsdp2"),
    ({"quantization": "nf4"}, {}, "add lora"),
    ({"training": {"bf16": True}}, {"gpu": "t4"}, "does not compute in bfloat16"),
    ({}, {"gpu": "h10"}, "did you mean 'h100'"),
    ({"training": {"deepspeed": {"zero_optimization": {"stage": 1}}}}, {}, "stages 2 and 3"),
]


@pytest.mark.parametrize(("keys", "where", "said"), REFUSED)
def test_what_cannot_be_estimated_is_refused_by_name(
    keys: dict[str, Any], where: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        plan_of(tmp_path, **where, **keys)


def test_the_command_writes_an_estimate_and_says_whether_it_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(devices.GPUS["l4"], name="small", memory_bytes=2**20)
    monkeypatch.setitem(devices.GPUS, "small", small)
    recipe, file = tmp_path / "recipe.yaml", tmp_path / "found.json"
    training = {"max_steps": 10, "per_device_train_batch_size": 2}
    recipe.write_text(yaml.safe_dump({"model": "tiny:qwen2", "data": "$NOWHERE", "training": training}))
    words = ["estimate", str(recipe), "--lengths", "50,100", "--picture", "0", "--json", str(file)]
    assert main([*words, "--gpu", "l4", "--price", "2"]) == 0
    found = json.loads(file.read_text())
    assert found["fits"]
    assert not found["measured"]
    assert found["cost"] == pytest.approx(2 * found["speed"]["hours"])
    assert found["speed"]["steps"] == 10
    assert "computed, not measured" in capsys.readouterr().out
    assert main([*words, "--gpu", "small"]) == 1
    said = capsys.readouterr()
    assert "take a larger GPU" in said.out
    assert "does not fit" in said.err
