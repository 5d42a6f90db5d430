"""The training arguments without torch say the same as the configs of the trainers, which inherit them."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig
from transformers.training_args import OptimizerNames
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
from balanced_thinking.training.header import describe_autocast
from balanced_thinking.training.launcher import follow_launcher
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
            assert known == kinds | ({bool} if name == "scale_rewards" else set()), name  # TRL takes one, too
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


@pytest.mark.parametrize(
    ("asked", "stated", "found"),
    [
        ("bf16", {}, "bf16"),
        ("bf16", {"bf16": True, "use_cpu": True}, "bf16"),
        ("no", {}, "no"),
        ("no", {"bf16": False}, "no"),
        ("bf16", {"bf16": False}, "bf16 is false, but ACCELERATE_MIXED_PRECISION is 'bf16'"),
        ("fp16", {"bf16": True, "use_cpu": True}, "bf16 is true, but ACCELERATE_MIXED_PRECISION is 'fp16'"),
        ("bf16", {"fp16": True}, "fp16 is true, but ACCELERATE_MIXED_PRECISION is 'bf16'"),
        ("fp8", {}, "ACCELERATE_MIXED_PRECISION is 'fp8', which is not supported"),
    ],
)
@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_the_launcher_s_precision_is_followed_or_refused(
    stage: str, asked: str, stated: dict[str, Any], found: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", asked)
    recipe, config = Recipe(stage=stage, training=stated), ScaleSFTConfig if stage == "sft" else ScaleGRPOConfig
    if " is " in found:
        for make in (lambda: training_arguments(recipe, tmp_path), lambda: config(str(tmp_path), **stated)):
            with pytest.raises(RecipeError, match=found):
                make()
        return
    for args in (training_arguments(recipe, tmp_path), config(str(tmp_path), **stated)):
        assert (args.mixed_precision, describe_autocast(args)) == (found, ", computed in bfloat16" * (found == "bf16"))
        assert stage == "grpo" or replace(args).mixed_precision == found  # TRL's config of GRPO cannot be copied
    assert bool(follow_launcher(recipe).training.get("bf16")) is (found == "bf16")


_APART = {"multi_objective_aggregation": "normalize_then_sum"}
_MOVING = {"sync_ref_model": True, "beta": 0.1}
_EVALUATED = {"eval_strategy": "steps", "eval_steps": 2, "per_device_eval_batch_size": 8}


@pytest.mark.parametrize(
    ("stage", "training", "said"),
    [
        # what would do nothing
        ("sft", {"optim_args": "weight_decay=0.1"}, "'weight_decay', which optim adamw_torch_fused does not read"),
        ("sft", {"optim": "sgd", "optim_args": "momentun=0.9"}, "(did you mean 'momentum'?), which optim sgd"),
        ("sft", {"optim_target_modules": "all-linear"}, "optim_target_modules is 'all-linear', but would do nothing"),
        ("sft", {"dataset_text_field": "body"}, "dataset_text_field is 'body', but would do nothing"),
        ("sft", {"packing_strategy": "wrapped"}, "packing_strategy is 'wrapped', but would do nothing"),
        ("sft", {"pack_tokens": 64}, "pack_tokens is 64, but would do nothing: packing is false"),
        ("sft", {"truncation_mode": "keep_end"}, "truncation_mode is 'keep_end', but would do nothing"),
        ("sft", {"dataset_num_proc": 2}, "dataset_num_proc is 2, but would do nothing"),
        ("sft", {"fsdp_config": {"min_num_params": 1}}, "fsdp_config is {'min_num_params': 1}, but would do nothing"),
        ("grpo", {"label_smoothing_factor": 0.1}, "label_smoothing_factor is 0.1, but would do nothing"),
        ("grpo", {"train_sampling_strategy": "sequential"}, "train_sampling_strategy is 'sequential', but would do"),
        ("grpo", {"generation_kwargs": {"foo": 3}}, "generation_kwargs has the key 'foo'"),
        ("grpo", {"sapo_temperature_pos": 2.0}, "sapo_temperature_pos is 2.0, but would do nothing"),
        ("grpo", {"ref_model_sync_steps": 2}, "ref_model_sync_steps is 2, but would do nothing"),
        ("grpo", {"think_weight_start": 0.9}, "think_weight_start is 0.9, but would do nothing: credit is completion"),
        ("grpo", {"schedule": "cosine", "credit": "completion"}, "schedule is 'cosine', but would do nothing"),
        ("grpo", {"think_budget": 100}, "think_budget is 100, but would do nothing: rewards has no conciseness"),
        ("grpo", {"rewards": {"format": 1.0}, "reward_scorer": "exact"}, "'exact', but would do nothing"),
        ("grpo", {"algorithm": "dr-grpo", **_APART}, "scale_rewards is 'none', but would do nothing"),
        ("grpo", {"loss_type": "cispo", "delta": 2.0}, "delta is 2.0, but would do nothing"),
        ("grpo", {"num_completions_to_print": 2}, "num_completions_to_print is 2, but would do nothing"),
        ("grpo", {"transformers_continuous_batching_config": {"a": 1}}, "but would do nothing"),
        # what would fail at a step
        ("sft", {"adam_beta1": 1.0}, "adam_beta1 is 1; expected at least 0 and less than 1"),
        ("sft", {"optim": "sgd", "optim_args": "momentum=abc"}, "optim sgd cannot be made from these arguments"),
        ("sft", {"lr_scheduler_type": "polynomial", "learning_rate": 1e-8}, "lr_end (1e-07) must be smaller"),
        ("sft", {"save_strategy": "best", **_EVALUATED}, "save_strategy is 'best', but nothing says what is the best"),
        ("sft", {"dataloader_persistent_workers": True}, "but there are no workers"),
        ("sft", {"accelerator_config": {"gradient_accumulation_kwargs": {"num_steps": 4}}}, "has num_steps 4"),
        ("sft", {"parallelism_config": {"dp_shard_size": 2}}, "expected accelerate's ParallelismConfig"),
        ("sft", {"packing": True, "pack_tokens": 0}, "pack_tokens is 0; expected at least 1"),
        ("sft", {"on_nonfinite": "skip", "nonfinite_limit": -1}, "nonfinite_limit is -1; expected at least 0"),
        ("sft", {"gradient_accumulation_steps": 0}, "gradient_accumulation_steps is 0; expected at least 1"),
        ("grpo", {"gradient_accumulation_steps": 0}, "gradient_accumulation_steps is 0; expected at least 1"),
        ("grpo", {"loss_type": "foo"}, "loss_type is 'foo'; known: grpo, bnpo"),
        ("grpo", {"scale_rewards": "foo"}, "scale_rewards is 'foo'; known: group, batch, none"),
        ("grpo", {"sync_ref_model": True}, "sync_ref_model is true, but beta is 0"),
        ("grpo", {**_EVALUATED, "num_generations_eval": 3}, "is 8, which is not a multiple of the 3 completions"),
        ("grpo", {"eval_on_start": True, "per_device_eval_batch_size": 4}, "is 4, which is not a multiple of the 8 c"),
        ("grpo", {"load_best_model_at_end": True, "save_steps": 2, **_EVALUATED}, "metric_for_best_model, such as rew"),
        ("grpo", {"save_strategy": "best", **_EVALUATED}, "set metric_for_best_model, such as reward"),
        ("grpo", {"lr_scheduler_type": "reduce_lr_on_plateau", **_EVALUATED}, "metric_for_best_model, such as reward"),
        ("grpo", {"max_completion_length": None}, "max_completion_length is null; expected a number"),
        ("grpo", {"num_generations": None}, "num_generations is null; expected a number"),
        ("grpo", {"top_k": -1}, "top_k is -1; expected at least 0"),  # vLLM's name for none
        ("grpo", {"min_p": -0.1}, "min_p is -0.1; expected at least 0"),
        ("grpo", {"epsilon_high": -0.5}, "epsilon_high is -0.5; expected at least 0"),
        ("grpo", {"delta": 0.0}, "delta is 0; expected more than 0"),
        ("grpo", {"top_entropy_quantile": 1.5}, "top_entropy_quantile is 1.5; expected at least 0 and at most 1"),
        ("grpo", {"off_policy_mask_threshold": -1.0}, "off_policy_mask_threshold is -1; expected at least 0"),
        ("grpo", {"pad_to_multiple_of": 0}, "pad_to_multiple_of is 0; expected at least 1"),
        ("grpo", {"loss_type": "sapo", "sapo_temperature_neg": 0.0}, "sapo_temperature_neg is 0; expected more than 0"),
        ("grpo", {"ref_model_sync_steps": 0, **_MOVING}, "ref_model_sync_steps is 0; expected at least 1"),
        ("grpo", {"ref_model_mixup_alpha": 2.0, **_MOVING}, "ref_model_mixup_alpha is 2; expected at least 0"),
        ("grpo", {"generation_kwargs": {"temperature": 0.5}}, "has temperature 0.5; set temperature instead"),
        ("grpo", {"generation_kwargs": {"max_new_tokens": 9}}, "has max_new_tokens 9; set max_completion_length"),
        ("grpo", {"generation_kwargs": {"num_return_sequences": 2}}, "has num_return_sequences 2, with which GRPO"),
        ("grpo", {"generation_kwargs": {"do_sample": False}}, "has do_sample false, with which GRPO cannot train"),
        ("grpo", {"generation_kwargs": {"stop_strings": ["</answer>"]}}, "has stop_strings ['</answer>'], with which"),
    ],
)
def test_a_config_says_at_once_what_does_nothing_or_fails_at_a_step(
    stage: str, training: dict[str, Any], said: str, tmp_path: Path
) -> None:
    recipe = Recipe(stage=stage, training=training, validation_split="validation")
    with pytest.raises(RecipeError, match=re.escape(said)):
        training_arguments(recipe, tmp_path)
    with pytest.raises(RecipeError, match=re.escape(said)):
        (ScaleSFTConfig if stage == "sft" else ScaleGRPOConfig)(str(tmp_path), **training)


@pytest.mark.parametrize(
    ("stage", "training"),
    [
        ("sft", {"optim": "sgd", "optim_args": "momentum=0.9,nesterov=true"}),
        ("sft", {"optim": "rmsprop", "optim_args": "alpha=0.9, centered=yes"}),
        ("sft", {"optim": "adafactor"}),
        ("sft", {"lr_scheduler_type": "polynomial", "learning_rate": 1e-6}),
        ("sft", {"dataset_kwargs": {"skip_prepare_dataset": True}, "dataset_text_field": "text"}),
        ("sft", {"save_strategy": "best", "metric_for_best_model": "loss", **_EVALUATED}),
        ("sft", {"dataloader_persistent_workers": True, "dataloader_num_workers": 1}),
        ("sft", {"accelerator_config": {"gradient_accumulation_kwargs": {"sync_each_batch": True}}}),
        ("grpo", {"scale_rewards": False}),
        ("grpo", {"model_init_kwargs": {"dtype": "bfloat16"}, "algorithm": "grpo"}),  # loads the reference model
        ("grpo", {"scale_rewards": "none", "loss_type": "sapo", "sapo_temperature_pos": 2.0}),
        ("grpo", {"generation_kwargs": {"num_beams": 1}, "beta": 0.1, "sync_ref_model": True}),
        ("grpo", {"generation_kwargs": {"do_sample": True, "temperature": 1.0, "max_new_tokens": 512}}),
        ("grpo", {"credit": "segment", "schedule": "cosine", "think_weight_start": 0.9}),
        ("grpo", {"save_strategy": "best", "metric_for_best_model": "reward", **_EVALUATED}),
        ("grpo", {"rewards": {"conciseness": 1.0, "format": 0.0}, "think_budget": 100, "reward_scorer": "exact"}),
        ("grpo", {**_APART, "pad_to_multiple_of": "auto", "top_entropy_quantile": 1.0}),
    ],
)
def test_what_is_beside_a_refused_argument_is_accepted(stage: str, training: dict[str, Any], tmp_path: Path) -> None:
    args = training_arguments(Recipe(stage=stage, training=training, validation_split="validation"), tmp_path)
    assert stage == "grpo" or replace(args).to_dict().keys() == args.to_dict().keys()
    assert "scale_rewards" not in training or args.scale_rewards == "none"


@pytest.mark.parametrize("config", [ScaleSFTConfig, ScaleGRPOConfig])
def test_what_scripts_for_trl_set_is_accepted(config: Any, tmp_path: Path) -> None:
    args = config(str(tmp_path), resume_from_checkpoint="checkpoint-2", fsdp_config={})
    assert args.resume_from_checkpoint == "checkpoint-2"  # for the script's own train(resume_from_checkpoint=...)
    config(str(tmp_path), optim=OptimizerNames.GALORE_ADAMW, optim_target_modules="all-linear")


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (Recipe(training={"model_init_kwargs": {"dtype": "bfloat16"}}), "model_options load the model"),
        (Recipe(stage="grpo", training={"model_init_kwargs": {"a": 1}}), "model_options load the model"),
        (Recipe(stage="grpo", lora={"r": 4}, training={"sync_ref_model": True, "beta": 0.1}), "base, which does not"),
        (Recipe(stage="grpo", training={"reward_weights": [1.0]}), r"a recipe names its rewards; set rewards: {name"),
        (Recipe(training={"fsdp": "full_shard"}), "fsdp shards a model among ranks, and this is one process"),
    ],
)
def test_what_a_recipe_alone_knows_is_refused(recipe: Recipe, said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=said):
        training_arguments(recipe, tmp_path)
