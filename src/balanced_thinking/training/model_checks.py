"""Checks of a model against its recipe, after its processor or the model is loaded and before any step."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.names import did_you_mean
from balanced_thinking.models.find import TINY_PREFIX, TinySize
from balanced_thinking.models.load import load_processor
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.training.recipe import Recipe

logger = logging.getLogger(__name__)
_EVERY_LAYER = "all-linear"  # PEFT's name for it


def load_checked_processor(recipe: Recipe, args: Any) -> Any:
    """The processor alone, as the trainer will use it: rows are checked with it before the model is loaded.

    Raises UsageError if it cannot be loaded, has no chat template, or lacks the `eos_token` of the arguments.
    """
    if recipe.model.startswith(TINY_PREFIX):
        size = TinySize(**recipe.model_size) if recipe.model_size else None
        processor = build_tiny(recipe.model.removeprefix(TINY_PREFIX), size=size)[1]
    else:
        processor = load_processor(recipe.model, recipe.image_options)
    tokenizer = getattr(processor, "tokenizer", processor)
    templates = (getattr(processor, "chat_template", None), tokenizer.chat_template)
    if not any(templates) and not getattr(args, "chat_template_path", None):
        fix = "chat_template_path" if recipe.stage == "sft" else "the chat_template.jinja of a model that was trained"
        raise RecipeError(
            f"{recipe.model} has no chat template, but training writes every prompt with one; set {fix}, or train "
            "from an instruction-tuned model"
        )
    end = getattr(args, "eos_token", None)
    if end is not None and end not in tokenizer.get_vocab():
        raise RecipeError(f"eos_token is {end!r}, which {recipe.model} does not have; expected {tokenizer.eos_token!r}")
    _apply_arguments(processor, tokenizer, args)
    return processor


def _apply_arguments(processor: Any, tokenizer: Any, args: Any) -> None:
    """What TRL does to a processor before it trains."""
    if (end := getattr(args, "eos_token", None)) is not None:
        tokenizer.eos_token = end
    template = getattr(args, "chat_template_path", None)
    if template is None:
        return
    if template.endswith((".jinja", ".j2")):
        text = Path(template).read_text(encoding="utf-8")
    else:
        donor = load_processor(template)
        text = getattr(donor, "chat_template", None) or getattr(donor, "tokenizer", donor).chat_template
    processor.chat_template = tokenizer.chat_template = text


def check_lora_targets(model: Any, lora: Mapping[str, Any]) -> None:
    """Raises RecipeError if LoRA would train no layer of the model; warns of names that match none."""
    targets = lora.get("target_modules")
    if targets is None and not lora.get("target_parameters"):
        kind = model.config.model_type
        if kind not in TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING:
            raise RecipeError(
                f"lora.target_modules is not set, and PEFT has no default for {kind}; set it to {_EVERY_LAYER}, or to "
                f"some of: {', '.join(_linear_layers(model))}"
            )
        return
    if targets is None or targets == _EVERY_LAYER:
        return
    names = [name for name, _ in model.named_modules()]
    if isinstance(targets, str):
        missing = [] if any(re.fullmatch(targets, name) for name in names) else [targets]
    else:
        missing = [one for one in targets if not any(name == one or name.endswith(f".{one}") for name in names)]
    if not missing:
        return
    layers = _linear_layers(model)
    found = f"lora.target_modules has {missing[0]!r}{did_you_mean(missing[0], layers)}, but no layer has this name"
    if isinstance(targets, str) or len(missing) == len(targets):
        raise RecipeError(f"{found}; known: {_EVERY_LAYER}, {', '.join(layers)}")
    logger.warning("%s; it is ignored", found)


def _linear_layers(model: Any) -> list[str]:
    """Last parts of the names of all linear layers except the head."""
    heads = {id(model.get_output_embeddings())}
    layers = (name for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and id(m) not in heads)
    return sorted({last for name in layers if not (last := name.rpartition(".")[2]).isdecimal()})
