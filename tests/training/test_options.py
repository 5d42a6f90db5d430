"""The training arguments without torch say the same as the configs of the trainers, which inherit them."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig
from trl import GRPOConfig, SFTConfig

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.types import Choices, admitted_types
from balanced_thinking.loss.linear_cross_entropy import IMPLEMENTATIONS
from balanced_thinking.loss.variants import HEAD_IMPLEMENTATIONS
from balanced_thinking.models.find import TINY_ARCHITECTURES
from balanced_thinking.models.tiny import ARCHITECTURES
from balanced_thinking.training.algorithms import AlgorithmArguments
from balanced_thinking.training.arguments import LORA_SYNONYMS, SYNONYMS, argument_types, lora_types
from balanced_thinking.training.grpo_config import ScaleGRPOConfig
from balanced_thinking.training.options import ScaleGRPOOptions, ScaleSFTOptions
from balanced_thinking.training.recipe import Recipe
from balanced_thinking.training.sft_config import ScaleSFTConfig
from balanced_thinking.training.stages import training_arguments

# Our options with their defaults, in the order of the constructor: scripts rely on both.
SFT = {
    "weighting": None,
    "schedule": None,
    "think_weight_start": None,
    "think_weight_end": None,
    "schedule_hold_start": 0.0,
    "schedule_hold_end": 0.0,
    "adaptive_tolerance": 0.05,
    "adaptive_latest": 0.5,
    "normalize": "example",
    "reasoning_format": "think-answer",
    "overflow": "error",
    "pack_tokens": None,
    "image_cache": None,
    "image_cache_gib": 20.0,
    "head_impl": "auto",
    "log_entropy": False,
    "max_hours": None,
    "on_nonfinite": "stop",
    "nonfinite_limit": 10,
    "answer_weight_start": None,
    "answer_weight_end": None,
    "closing_tag_factor": 1.0,
    "token_gate": "none",
    "token_gate_on": "all",
    "match_gradient_norm": None,
    "validation_generate": 0,
    "validation_max_new_tokens": 512,
    "validation_scorer": "exact",
    "early_stopping_patience": None,
    "early_stopping_threshold": 0.0,
    "chat_template_kwargs": None,
}
GRPO = {
    "rewards": None,
    "reward_scorer": "numeric",
    "think_budget": 256,
    "reasoning_format": "think-answer",
    "credit": "completion",
    "schedule": "constant",
    "think_weight_start": 0.5,
    "think_weight_end": 0.5,
    "max_hours": None,
    "on_nonfinite": "stop",
    "nonfinite_limit": 10,
    "algorithm": None,
}
# TRL's own, with another default.
CHANGED_SFT = {
    "packing": False,
    "max_length": 4096,
    "dataloader_num_workers": None,
    "logging_nan_inf_filter": False,
    "bf16": None,
    "dataloader_pin_memory": True,
}
CHANGED_GRPO = {"bf16": None, "dataloader_pin_memory": True}
CHANGED_GRPO |= dict.fromkeys(AlgorithmArguments.__dataclass_fields__)
STAGES = [
    (ScaleSFTConfig, ScaleSFTOptions, SFTConfig, SFT, CHANGED_SFT),
    (ScaleGRPOConfig, ScaleGRPOOptions, GRPOConfig, GRPO, CHANGED_GRPO),
]


@pytest.mark.parametrize(("config", "options", "base", "own", "changed"), STAGES)
def test_ours_follow_trls_own_in_an_order_and_with_defaults_that_stay(
    config: Any, options: Any, base: Any, own: dict[str, Any], changed: dict[str, Any]
) -> None:
    assert [f.name for f in fields(config)] == [*(f.name for f in fields(base)), *own]
    defaults = {f.name: f.default for f in fields(config)}
    for name, value in (own | changed).items():
        assert (defaults[name], type(defaults[name])) == (value, type(value)), name
    assert {f.name: f.default for f in fields(options)} == own | changed
    untouched = {f.name: f.default for f in fields(base) if f.name not in changed}
    assert {name: defaults[name] for name in untouched} == untouched


@pytest.mark.parametrize(("config", "options", "base", "own", "changed"), STAGES)
def test_a_config_is_shown_and_copied_as_trls(
    config: Any, options: Any, base: Any, own: dict[str, Any], changed: dict[str, Any], tmp_path: Any
) -> None:
    args = config(output_dir=str(tmp_path), per_device_train_batch_size=8, think_weight_end=0.5)
    assert isinstance(args, base)
    assert isinstance(args, options)
    assert args.to_dict()["think_weight_end"] == 0.5
    assert str(args).startswith(f"{config.__name__}(")


@pytest.mark.parametrize(
    ("found", "imported"),
    [
        (lambda: argument_types("sft"), ScaleSFTConfig),
        (lambda: argument_types("grpo"), ScaleGRPOConfig),
        (lambda: {name: kinds for name, kinds in lora_types().items() if name != "targets"}, LoraConfig),  # ours
    ],
)
def test_names_and_types_read_from_source_are_those_of_the_classes(found: Any, imported: type) -> None:
    """Types that only their library knows go by name; PEFT's enumerations are not read."""
    types, expected = found(), admitted_types(imported)
    assert types.keys() == expected.keys()
    for name, kinds in expected.items():
        known = {kind for kind in types[name] if not isinstance(kind, str)}
        if known == types[name]:
            assert known == kinds, name
        else:
            assert known - {str} <= kinds, name
    choices = {name for name, kinds in types.items() if any(isinstance(kind, Choices) for kind in kinds)}
    assert choices >= ({"bias"} if imported is LoraConfig else {"lr_scheduler_type", "optim", "eval_strategy"})


def test_synonyms_lead_to_names_that_are_there() -> None:
    arguments = {*argument_types("sft"), *argument_types("grpo")}
    known = {*arguments, *(f.name for f in fields(Recipe)), "out"}
    for synonym, name in SYNONYMS.items():
        assert name.partition(".")[0] in known
        assert synonym not in known - {"output_dir"}
    for synonym, name in LORA_SYNONYMS.items():
        assert name in lora_types()
        assert synonym not in lora_types()


def test_names_that_need_no_torch_are_those_of_what_they_name() -> None:
    assert set(HEAD_IMPLEMENTATIONS) == IMPLEMENTATIONS.keys()
    assert set(TINY_ARCHITECTURES) == ARCHITECTURES.keys()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("bf16", "bf16 is true, but bfloat16 is not supported on a CPU; leave it out, or add --use_cpu true"),
        ("bf16_full_eval", "bf16_full_eval is true, but bfloat16 is not supported on a CPU"),
        ("tf32", "tf32 is true, but it is not supported on a CPU; leave it out"),
        ("fp16", "fp16 is true, but float16 is not supported on a CPU; leave it out"),
    ],
)
def test_a_number_type_that_the_machine_lacks_is_refused(
    option: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    for name in ("bf16_gpu", "tf32"):
        monkeypatch.setattr(f"balanced_thinking.training.safety.is_torch_{name}_available", lambda: False)
    with pytest.raises(RecipeError, match=re.escape(said)):
        training_arguments(Recipe(training={option: True}), tmp_path)


def test_a_cpu_computes_in_bfloat16_where_it_is_asked_for(tmp_path: Path) -> None:
    assert training_arguments(Recipe(training={"bf16": True, "use_cpu": True}), tmp_path).bf16
