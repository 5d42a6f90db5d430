"""The model of a recipe without numbers: its classes and shapes, with adapter, quantization and frozen parts."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from peft import get_peft_model
from transformers import AutoConfig, AutoModelForImageTextToText

from balanced_thinking.estimate.autocast import LikeAutocast
from balanced_thinking.estimate.devices import EstimateError
from balanced_thinking.estimate.known_models import KNOWN_MODELS
from balanced_thinking.estimate.plan import Plan
from balanced_thinking.estimate.quantized import quantize_layers
from balanced_thinking.loss.chunks import autocast_dtype
from balanced_thinking.models.find import TinySize, find_model_source
from balanced_thinking.models.freezing import freeze_parts
from balanced_thinking.models.outline import outline_model
from balanced_thinking.models.parts import ModelParts
from balanced_thinking.training.head import attach_weighted_head
from balanced_thinking.training.lora import make_lora_config


class Sketch(NamedTuple):
    """The model, its parameters by part before an adapter was added, and where its sizes are from."""

    model: Any
    parameters: dict[str, int]
    source: str


def sketch_model(plan: Plan) -> Sketch:
    """The model as a training holds it, on the meta device, in the dtype in which it computes where it is sharded."""
    model, source = _outline(plan)
    parameters = ModelParts(model).count_parameters()
    _set_dtypes(model, plan)
    recipe = plan.recipe
    if recipe.freeze:
        freeze_parts(model, recipe.freeze)
    if recipe.quantization is not None:
        quantize_layers(model, recipe.quantization)
    attach_weighted_head(model, "chunked")
    if plan.checkpoints:
        model.activation_checkpointing_enable({"use_reentrant": False, "context_fn": _make_contexts})
    model.train()
    if recipe.lora is not None:
        adapter = make_lora_config(model, recipe.lora)
        with torch.device("meta"):
            model = get_peft_model(model, adapter)
        if plan.checkpoints:
            model.enable_input_require_grads()
        model.train()
    return Sketch(model, parameters, source)


def _outline(plan: Plan) -> tuple[Any, str]:
    name = plan.recipe.model
    known = KNOWN_MODELS.get(name)
    if known is not None and find_model_source(name) == name:
        config = AutoConfig.for_model(known.model_type, **known.config)
        with torch.device("meta"):
            return AutoModelForImageTextToText.from_config(config), known.source
    size = TinySize(**plan.recipe.model_size) if plan.recipe.model_size else None
    try:
        return outline_model(plan.recipe.pinned_model, size=size), "its configuration"
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise EstimateError(
            f"the configuration of {name} cannot be read: {str(error)[:300]}; give a folder with its config.json, or "
            f"one of the models that need no network: {', '.join(KNOWN_MODELS)}"
        ) from error


def _set_dtypes(model: Any, plan: Plan) -> None:
    """FSDP2 and ZeRO compute in copies of the lower dtype; else autocast does."""
    shares_copies = plan.sharding in ("fsdp2", "zero2", "zero3") and plan.autocast is not None
    model.to(plan.autocast if shares_copies else plan.weights_dtype)


def _make_contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Of a checkpointed layer's forward, and of when it is computed again in the backward."""
    again = LikeAutocast(autocast_dtype(torch.device("meta")))
    again.forget_copies()
    return nullcontext(), again
