"""Checks of a model against its recipe, after its processor or the model is loaded and before any step."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.models.find import TINY_PREFIX, TinySize
from balanced_thinking.models.load import LoadedModel, load_processor
from balanced_thinking.models.processor import refuse_tiny_image_options
from balanced_thinking.models.processor_parts import tokenizer_of
from balanced_thinking.models.template_variables import fix_template_variables
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.segments import get_format
from balanced_thinking.training.recipe import Recipe

logger = logging.getLogger(__name__)


def load_training_processor(recipe: Recipe, args: Any) -> Any:
    """The processor alone, as the trainer will use it: rows are checked with it before the model is loaded.

    Raises UsageError if it cannot be loaded, has no chat template, or lacks the `eos_token` of the arguments.
    """
    if recipe.model.startswith(TINY_PREFIX):
        refuse_tiny_image_options(recipe.image_options)
        size = TinySize(**recipe.model_size) if recipe.model_size else None
        processor = build_tiny(recipe.model.removeprefix(TINY_PREFIX), size=size)[1]
    else:
        processor = load_processor(recipe.pinned_model, recipe.image_options)
    tokenizer = tokenizer_of(processor)
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
    if _writes_date(processor, tokenizer):
        logger.warning(
            "the chat template of %s writes the date (strftime_now), so prompts change from day to day: those of "
            "a resumed run, and those of evaluation beside training. Write a fixed date in the template",
            recipe.model,
        )
    return processor


def _writes_date(processor: Any, tokenizer: Any) -> bool:
    templates = (getattr(processor, "chat_template", None), tokenizer.chat_template)
    return "strftime_now(" in str(next(filter(None, templates), ""))


def _apply_arguments(processor: Any, tokenizer: Any, args: Any) -> None:
    """What the trainer does to a processor before it trains."""
    if (end := getattr(args, "eos_token", None)) is not None:
        tokenizer.eos_token = end
    if (template := getattr(args, "chat_template_path", None)) is not None:
        if template.endswith((".jinja", ".j2")):
            text = Path(template).read_text(encoding="utf-8")
        else:
            donor = load_processor(template)
            text = getattr(donor, "chat_template", None) or tokenizer_of(donor).chat_template
        processor.chat_template = tokenizer.chat_template = text
    if variables := getattr(args, "chat_template_kwargs", None):
        fix_template_variables(processor, variables)


def untrained_tags(loaded: LoadedModel, tags: Collection[str], lora: Mapping[str, Any]) -> list[str]:
    """The tags that are tokens of their own, look new, and whose rows in the embedding LoRA does not train.

    New are the last tokens of the vocabulary, where tokens are added, that the model's chat template does not write.
    """
    tokenizer = tokenizer_of(loaded.processor)
    embedding = loaded.model.get_input_embeddings()
    places = {name.rpartition(".")[2] for name, module in loaded.model.named_modules() if module is embedding}
    targets = lora.get("target_modules") or ()
    trained = [*(lora.get("modules_to_save") or ()), *([targets] if isinstance(targets, str) else targets)]
    if lora.get("trainable_token_indices") or places & set(trained):
        return []
    template = str(getattr(loaded.processor, "chat_template", None) or tokenizer.chat_template or "")
    numbers = {number: tag for tag, number in tokenizer.get_added_vocab().items()}
    new: list[str] = []
    for number in range(len(tokenizer) - 1, -1, -1):
        tag = numbers.get(number)
        if tag is None or tag not in tags or tag in template:
            break
        new.append(tag)
    return new[::-1]


def hint_untrained_tags(loaded: LoadedModel, format: str | Mapping[str, Any], lora: Mapping[str, Any]) -> None:
    """Log how to train the rows of new tokens, which stay random with LoRA, so that the model never writes them."""
    if new := untrained_tags(loaded, get_format(format).tag_kinds, lora):
        logger.warning(
            "%s: the last tokens of the vocabulary, and LoRA does not train their rows of the embedding. If they are "
            "new, train them with --lora.modules_to_save '[embed_tokens, lm_head]' or --lora.trainable_token_indices",
            ", ".join(new),
        )
