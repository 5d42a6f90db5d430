"""The model that a recipe trains: loaded, quantized, and with its frozen parts."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch

from balanced_thinking.models.dtypes import dtype_name
from balanced_thinking.models.find import TINY_PREFIX, TinySize, adapter_base_name, find_model_source
from balanced_thinking.models.freezing import freeze_parts
from balanced_thinking.models.load import LoadedModel, ensure_saved, load_model
from balanced_thinking.models.quantization import BITS
from balanced_thinking.runs.paths import RunFiles
from balanced_thinking.training.recipe import Recipe
from balanced_thinking.training.sharded import refuse_quantized_shards

logger = logging.getLogger(__name__)


def load_training_model(recipe: Recipe, args: Any, out: Path) -> LoadedModel:
    """The model of a recipe with its processor.

    A quantized base must be found again by its name. So random weights and merged adapters are first saved to the
    run's `base/`. Raises RecipeError for a part that cannot be frozen, and for quantization of a sharded model.
    """
    options: dict[str, Any] = {"allow_missing": recipe.allow_missing, **recipe.model_options}
    if recipe.quantization is None:
        loaded = _load_dense(recipe, args, options)
    else:
        _refuse_sharding(recipe.quantization, args)
        loaded = _load_quantized(recipe, args, out, options)
    if recipe.freeze:
        freeze_parts(loaded.model, recipe.freeze)
    return loaded


def keep_adapter_precision(model: Any) -> None:
    """Undo TRL's rounding of an adapter to bfloat16 beside a quantized base: small updates would be lost in it."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype == torch.bfloat16:
            parameter.data = parameter.data.float()


def _load_dense(recipe: Recipe, args: Any, options: dict[str, Any]) -> LoadedModel:
    size = TinySize(**recipe.model_size) if recipe.model_size else None
    return load_model(recipe.model, seed=args.seed, size=size, image_options=recipe.image_options, **options)


def _load_quantized(recipe: Recipe, args: Any, out: Path, options: dict[str, Any]) -> LoadedModel:
    source = recipe.pinned_model
    if not _has_own_weights(source):
        dense = ensure_saved(_load_dense(recipe, args, options), RunFiles(out).base_model)
        source, options = str(dense.source), {name: options[name] for name in ("dtype",) if name in options}
        if not recipe.model.startswith(TINY_PREFIX):
            logger.warning(
                "%s is an adapter: it was merged into its base, and the result is quantized to %s, which rounds what "
                "the adapter has learned. Leave quantization out to train on the merged weights as they are",
                recipe.model,
                recipe.quantization,
            )
    name = recipe.quantization
    loaded = load_model(source, seed=args.seed, image_options=recipe.image_options, quantization=name, **options)
    logger.info("quantization: %s", describe_quantized(loaded.model, str(name)))
    return loaded


def describe_quantized(model: Any, name: str) -> str:
    """One line: what is quantized, and what is not."""
    layers = sum(type(module).__name__ in ("Linear4bit", "Linear8bitLt") for module in model.modules())
    dtype = dtype_name(model.dtype)
    return (
        f"{name}: {layers} linear layers of the language model in {BITS[name]} bits; its embeddings, norms and head, "
        f"and everything that sees pictures, stay in {dtype}"
    )


def _has_own_weights(name: str) -> bool:
    return not name.startswith(TINY_PREFIX) and adapter_base_name(find_model_source(name)) is None


def _refuse_sharding(quantization: str, args: Any) -> None:
    of_accelerate = [os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true" for name in ("FSDP", "DEEPSPEED")]
    if args.fsdp or args.deepspeed or any(of_accelerate):
        refuse_quantized_shards(quantization)
