"""Parts of a model that a full fine-tuning leaves as they are."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.models.parts import ModelParts, short_count

logger = logging.getLogger(__name__)


def freeze_parts(model: Any, frozen: Sequence[str]) -> None:
    """Take the gradients off these parts, and log what is frozen and what is trained, in parameters.

    Raises RecipeError for a part that the model lacks, and where nothing would be trained.
    """
    parts = ModelParts(model)
    counts = parts.count_parameters()
    for part in frozen:
        if part not in counts:
            raise RecipeError(f"freeze has {part!r}, but the model has no such part; it has: {', '.join(counts)}")
    if not counts.keys() - {*frozen}:
        raise RecipeError(f"freeze is {list(frozen)}: these are all parts of the model; leave out one to train it")
    for name, parameter in model.named_parameters():
        if parts.find_part(name) in frozen:
            parameter.requires_grad_(False)
    shown = [", ".join(f"{part} {short_count(n)}" for part, n in some.items()) for some in _divide(counts, frozen)]
    logger.info("frozen parameters: %s; trained: %s", *shown)


def _divide(counts: dict[str, int], frozen: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
    kept = {part: count for part, count in counts.items() if part in frozen}
    return kept, {part: count for part, count in counts.items() if part not in frozen}


def learns_from_pictures_alone(model: Any) -> bool:
    """Whether nothing of the language model is trained: then a text without a picture has no gradient."""
    parts = ModelParts(model)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return bool(trained) and not any(parts.find_part(name) == "language" for name in trained)
