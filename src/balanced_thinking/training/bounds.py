"""The ranges of numbers in a recipe: whatever is outside of them fails upstream late, or trains wrongly in silence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from balanced_thinking.config.errors import RecipeError

_MOST_TOKENS = 10**7  # of one sample
_MOST_BATCH = 2**20
_MOST_STEPS = 10**9
_MOST_RANKS = 2**20
_MOST_INTEGER = 10**12  # of an argument that has no limit of its own
_SHOWN = 40  # digits of a number in a message

# The smallest values of arguments. With most smaller ones upstream fails at the first step, or silently trains wrongly.
_AT_LEAST: dict[str, float] = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "learning_rate": 0,
    "weight_decay": 0,
    "max_grad_norm": 0,
    "warmup_steps": 0,
    "adam_beta1": 0,
    "adam_beta2": 0,
    "adam_epsilon": 0,
    "seed": 0,
    "data_seed": 0,
    "dataloader_num_workers": 0,
    "max_length": 1,
    "pack_tokens": 1,
    "think_budget": 1,
    "num_generations": 2,
    "num_generations_eval": 1,
    "generation_batch_size": 1,
    "steps_per_generation": 1,
    "num_iterations": 1,
    "max_completion_length": 1,
    "beta": 0,
    "epsilon": 0,
    "epsilon_high": 0,
    "top_k": 0,
    "min_p": 0,
    "top_entropy_quantile": 0,
    "off_policy_mask_threshold": 0,
    "ref_model_sync_steps": 1,
    "ref_model_mixup_alpha": 0,
    "pad_to_multiple_of": 1,
    "nonfinite_limit": 0,
    "validation_generate": 0,
    "validation_max_new_tokens": 1,
    "early_stopping_patience": 1,
    "early_stopping_threshold": 0,
}
_ABOVE: dict[str, float] = {
    "num_train_epochs": 0,
    "logging_steps": 0,
    "save_steps": 0,
    "eval_steps": 0,
    "image_cache_gib": 0,
    "max_hours": 0,
    "temperature": 0,
    "top_p": 0,
    "repetition_penalty": 0,
    "delta": 0,
    "sapo_temperature_neg": 0,
    "sapo_temperature_pos": 0,
}
# The largest values, far above what any training has used: beyond them memory, time or a type of integers ends first.
_AT_MOST: dict[str, float] = {
    "top_p": 1,
    "min_p": 1,
    "top_entropy_quantile": 1,
    "ref_model_mixup_alpha": 1,
    "seed": 2**32 - 1,
    "data_seed": 2**32 - 1,
    "learning_rate": 1000,
    "weight_decay": 1000,
    "num_train_epochs": 10**6,
    "max_steps": _MOST_STEPS,
    "warmup_steps": _MOST_STEPS,
    "logging_steps": _MOST_STEPS,
    "save_steps": _MOST_STEPS,
    "eval_steps": _MOST_STEPS,
    "gradient_accumulation_steps": _MOST_BATCH,
    "per_device_train_batch_size": _MOST_BATCH,
    "per_device_eval_batch_size": _MOST_BATCH,
    "generation_batch_size": _MOST_BATCH,
    "num_generations": _MOST_BATCH,
    "num_generations_eval": _MOST_BATCH,
    "steps_per_generation": _MOST_BATCH,
    "num_iterations": _MOST_BATCH,
    "max_length": _MOST_TOKENS,
    "pack_tokens": _MOST_TOKENS,
    "think_budget": _MOST_TOKENS,
    "max_completion_length": _MOST_TOKENS,
    "validation_max_new_tokens": _MOST_TOKENS,
    "dataloader_num_workers": 1024,
    "dataloader_prefetch_factor": 1024,
    "image_cache_gib": 10**6,
    "max_hours": 10**6,
}
_BELOW: dict[str, float] = {"adam_beta1": 1, "adam_beta2": 1}
_MAY_BE_INFINITE = ("max_grad_norm",)  # which then measures the norm, and clips nothing
_LORA_AT_LEAST: dict[str, float] = {"r": 1, "lora_dropout": 0}
_LORA_ABOVE: dict[str, float] = {"lora_alpha": 0}  # below 1 it scales the adapter down, which rsLoRA may want
_LORA_AT_MOST: dict[str, float] = {"r": 10**5, "lora_alpha": 10**6}
_LORA_BELOW: dict[str, float] = {"lora_dropout": 1}  # at 1 nothing is left of the adapter's input to learn from
_RECIPE_AT_MOST: dict[str, float] = {"limit": _MOST_INTEGER}
_MOST_SIZE = 2**20  # a width or a depth of a tiny model
_SIZE_NAMES = ("hidden", "layers", "heads", "vision_hidden", "vision_layers", "max_image_tokens", "image_side")


def check_argument_bounds(arguments: Mapping[str, Any]) -> None:
    """Raises RecipeError for a training argument outside its range: the number, and the range."""
    _check_bounds(arguments, _AT_LEAST, _ABOVE, _AT_MOST, below=_BELOW)


def check_lora_bounds(lora: Mapping[str, Any], prefix: str = "lora.") -> None:
    """As `check_argument_bounds`, for the arguments of an adapter."""
    _check_bounds(lora, _LORA_AT_LEAST, _LORA_ABOVE, _LORA_AT_MOST, prefix, _LORA_BELOW)


def check_recipe_bounds(limit: int | None, model_size: Mapping[str, Any], ranks: int | None = None) -> None:
    """As `check_argument_bounds`, for the numbers of a recipe itself."""
    if ranks is not None and not 1 <= ranks <= _MOST_RANKS:
        raise RecipeError(f"ranks is {_format_number(ranks)}; expected 1 to {_MOST_RANKS}, or null for any number")
    if limit is not None and limit < 1:
        raise RecipeError(f"limit is {_format_number(limit)}; expected at least 1, or null for all rows")
    _check_bounds({"limit": limit}, {}, {}, _RECIPE_AT_MOST)
    sizes = dict.fromkeys(_SIZE_NAMES, _MOST_SIZE)
    _check_bounds(model_size, dict.fromkeys(_SIZE_NAMES, 1), {}, sizes, "model_size.")


def _check_bounds(
    values: Mapping[str, Any],
    at_least: Mapping[str, float],
    above: Mapping[str, float],
    at_most: Mapping[str, float],
    prefix: str = "",
    below: Mapping[str, float] = MappingProxyType({}),
) -> None:
    for name, value in values.items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        low, open_low, high = at_least.get(name, -math.inf), above.get(name, -math.inf), at_most.get(name, math.inf)
        expected = [f"at least {low}"] if name in at_least else [f"more than {open_low}"] if name in above else []
        expected += [f"at most {high}"] if name in at_most else [f"less than {below[name]}"] if name in below else []
        inside = low <= value <= high and (open_low == -math.inf or value > open_low)
        inside = inside and (name not in below or value < below[name])
        if isinstance(value, float) and not math.isfinite(value):
            inside = inside and value == math.inf and name in _MAY_BE_INFINITE
            expected = expected or ["a finite number"]
        elif inside and abs(value) > _MOST_INTEGER and isinstance(value, int):
            inside, expected = False, [*expected, f"at most {_MOST_INTEGER}"]
        if not inside:
            raise RecipeError(
                f"{prefix}{name} is {_format_number(value)}; expected {' and '.join(expected) or 'a number'}"
            )


def _format_number(value: float) -> str:
    """A number for a message. Python writes no integer of more than 4,300 digits."""
    if isinstance(value, float):
        return f"{value:g}"
    digits = int(value.bit_length() * math.log10(2)) + 1
    return str(value) if digits <= _SHOWN else f"an integer of about {digits} digits"
