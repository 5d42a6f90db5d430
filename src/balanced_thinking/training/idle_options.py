"""Arguments of upstream that would do nothing here: they are refused where they are not as by default. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.types import format_value
from balanced_thinking.training.algorithms import DEFAULT_REWARDS


class _Idle(NamedTuple):
    """`default`: the value that says nothing. `when`: whether it does nothing; always, by default."""

    default: Any
    why: str
    when: Callable[[Mapping[str, Any]], bool] = lambda _: True


def _without(name: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda values: not values.get(name)


def _not_loss(name: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda values: values.get("loss_type") != name


def _has_no_layers(values: Mapping[str, Any]) -> bool:
    optim = getattr(values.get("optim"), "value", values.get("optim"))
    return not any(name in str(optim) for name in ("galore", "apollo"))


_OF_BOTH: dict[str, _Idle] = {
    "optim_target_modules": _Idle(None, "only GaLore and APOLLO read it; set optim to one of them", _has_no_layers),
    "fsdp_config": _Idle(None, "it is read with fsdp only; set fsdp, too", _without("fsdp")),
    "liger_kernel_config": _Idle(None, "use_liger_kernel is false", _without("use_liger_kernel")),
    "length_column_name": _Idle("length", "lengths are estimated from the rows themselves"),
}
_OF_SFT: dict[str, _Idle] = {
    "dataset_text_field": _Idle("text", "rows have messages, or a prompt and a completion"),
    "dataset_kwargs": _Idle(None, "rows are prepared batch by batch"),
    "dataset_num_proc": _Idle(None, "rows are prepared batch by batch; set dataloader_num_workers"),
    "packing_strategy": _Idle("bfd", "packing has one way here; pack_tokens limits the length of a row"),
    "pack_tokens": _Idle(None, "packing is false", _without("packing")),
    "truncation_mode": _Idle("keep_start", "no answer is cut off; overflow says what happens to a long sample"),
    "average_tokens_across_devices": _Idle(True, "the denominators are always those of all ranks"),
}


def _without_reward(*names: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda values: not {*names} & {*(values.get("rewards") or DEFAULT_REWARDS)}


def _has_one_credit(values: Mapping[str, Any]) -> bool:
    return values.get("credit") == "completion"


_ONE_CREDIT = "credit is completion, so that thinking and answer share nothing; set credit to segment"
_UNCLIPPED = ("cispo", "sapo", "vespo")
_SYNC, _ADAPTIVE, _VLLM = (_without(name) for name in ("sync_ref_model", "use_adaptive_entropy", "use_vllm"))
_OF_GRPO: dict[str, _Idle] = {
    "label_smoothing_factor": _Idle(0.0, "GRPO has no labels"),
    "train_sampling_strategy": _Idle(
        "random", "a generation has its own order; shuffle_dataset=false keeps the data's"
    ),
    "schedule": _Idle("constant", _ONE_CREDIT, _has_one_credit),
    "think_weight_start": _Idle(0.5, _ONE_CREDIT, _has_one_credit),
    "think_weight_end": _Idle(0.5, _ONE_CREDIT, _has_one_credit),
    "think_budget": _Idle(256, "rewards has no conciseness", _without_reward("conciseness")),
    "reward_scorer": _Idle(
        "numeric", "rewards has neither accuracy nor conciseness", _without_reward("accuracy", "conciseness")
    ),
    "scale_rewards": _Idle(
        "group",
        "multi_objective_aggregation is normalize_then_sum, which divides each reward by its own standard deviation",
        lambda values: values.get("multi_objective_aggregation") == "normalize_then_sum",
    ),
    "delta": _Idle(None, "loss_type has no clipping from above", lambda values: values.get("loss_type") in _UNCLIPPED),
    "num_completions_to_print": _Idle(None, "log_completions is false", _without("log_completions")),
    "log_unique_prompts": _Idle(False, "log_completions is false", _without("log_completions")),
    "transformers_continuous_batching_config": _Idle(
        None, "use_transformers_continuous_batching is false", _without("use_transformers_continuous_batching")
    ),
    "sapo_temperature_neg": _Idle(1.05, "loss_type is not sapo", _not_loss("sapo")),
    "sapo_temperature_pos": _Idle(1.0, "loss_type is not sapo", _not_loss("sapo")),
    "vespo_k_pos": _Idle(2.0, "loss_type is not vespo", _not_loss("vespo")),
    "vespo_lambda_pos": _Idle(3.0, "loss_type is not vespo", _not_loss("vespo")),
    "vespo_k_neg": _Idle(3.0, "loss_type is not vespo", _not_loss("vespo")),
    "vespo_lambda_neg": _Idle(2.0, "loss_type is not vespo", _not_loss("vespo")),
    "ref_model_mixup_alpha": _Idle(0.6, "sync_ref_model is false", _SYNC),
    "ref_model_sync_steps": _Idle(512, "sync_ref_model is false", _SYNC),
    "entropy_coef_min": _Idle(0.0, "use_adaptive_entropy is false", _ADAPTIVE),
    "entropy_coef_max": _Idle(1.0, "use_adaptive_entropy is false", _ADAPTIVE),
    "entropy_coef_delta": _Idle(0.005, "use_adaptive_entropy is false", _ADAPTIVE),
    "entropy_target": _Idle(0.2, "use_adaptive_entropy is false", _ADAPTIVE),
    "vllm_max_model_length": _Idle(None, "use_vllm is false", _VLLM),
    "vllm_structured_outputs_regex": _Idle(None, "use_vllm is false", _VLLM),
    "vllm_server_base_url": _Idle(None, "use_vllm is false", _VLLM),
}
_IDLE = {"sft": {**_OF_BOTH, **_OF_SFT}, "grpo": {**_OF_BOTH, **_OF_GRPO}}
# A value of `dataset_kwargs` that asks for what happens in any case.
_AS_HERE = {"skip_prepare_dataset": True}


def refuse_idle_options(stage: str, values: Mapping[str, Any]) -> None:
    """Raises RecipeError for an argument of a stage that says something and would do nothing."""
    for name, (default, why, when) in _IDLE[stage].items():
        value = values.get(name, default)
        if value in (None, {}, default) or (name == "dataset_kwargs" and value == _AS_HERE):
            continue
        if when(values):
            raise RecipeError(f"{name} is {format_value(value)}, but would do nothing: {why}. Leave {name} out")
