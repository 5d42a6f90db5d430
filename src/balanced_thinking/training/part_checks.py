"""Checks of `quantization` and `freeze` in a recipe, before anything is loaded: no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.names import did_you_mean
from balanced_thinking.models.part_names import PARTS
from balanced_thinking.models.quantization import check_quantization
from balanced_thinking.training.recipe import Recipe


def check_quantization_and_freezing(recipe: Recipe, arguments: Mapping[str, Any]) -> None:
    """Raises RecipeError for a value or a combination that cannot be trained, with what to change."""
    check_quantization(recipe.quantization)
    if recipe.quantization is not None:
        _check_quantized(recipe, arguments)
    for part in recipe.freeze:
        if part not in PARTS:
            raise RecipeError(
                f"freeze has {part!r}{did_you_mean(str(part), PARTS)}; known: {', '.join(PARTS)}, as far as the model "
                "has them"
            )
    if recipe.freeze and recipe.lora is not None:
        raise RecipeError(
            f"freeze is {recipe.freeze}, but lora trains an adapter, and the whole base stays as it is: leave freeze "
            "out, and say with lora.targets which parts get an adapter"
        )
    if "language" in recipe.freeze and recipe.stage == "grpo":
        raise RecipeError("freeze has 'language', which GRPO trains; leave it out, or train the other parts with sft")


def _check_quantized(recipe: Recipe, arguments: Mapping[str, Any]) -> None:
    named = f"quantization is {recipe.quantization!r}"
    if "quantization_config" in recipe.model_options:
        raise RecipeError(f"{named}, and model_options.quantization_config is set, too; leave one of them out")
    if recipe.lora is None:
        raise RecipeError(
            f"{named}, but quantized weights cannot be trained themselves: train an adapter (--lora.r 16), or leave "
            "quantization out"
        )
    if arguments.get("use_vllm"):
        raise RecipeError(f"{named}, but vLLM would be given quantized weights to load; leave use_vllm out")
