"""What a stream (a data set without a length) needs, because transformers takes no step where one ends."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset
from transformers import TrainerState

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.training.inspect_checkpoint import TRAINER_STATE_FILE

logger = logging.getLogger(__name__)


def complete_last_step(batches: list[Any], expected: int, collator: Any) -> list[Any]:
    """The micro-batches of a step, `expected` of them also where a stream ended within the step.

    transformers counts micro-batches and not streams: those at the end of one would add their gradient to the next
    step's, which has its own denominators. Empty ones complete the step, and it is taken with the rows that it has. A
    collator that takes no empty batch leaves these rows out, with a warning.
    """
    if not 0 < len(batches) < expected:
        return batches
    if isinstance(collator, ScaleCollator):
        return [*batches, *(collator([]) for _ in range(expected - len(batches)))]
    logger.warning(
        "the stream ended after %d of the %d micro-batches of a step, which are left out, because the data collator is "
        "your own. For a step with them leave data_collator out, or set gradient_accumulation_steps to 1",
        len(batches),
        expected,
    )
    return []


def find_place_in_stream(checkpoint: str, accumulation: int) -> tuple[int, int]:
    """How often a checkpoint's training has passed through its stream, and the micro-batches that it has had since.

    transformers takes a stream for one pass of all steps, also where it has ended and begun anew. The epoch in the
    state is right: each step adds its share of all steps to it, and a new pass begins with the next integer. A training
    that took all its steps in one pass ends with an epoch of 1, and is still in that pass.
    """
    state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_FILE))
    passes = max(0, math.ceil(state.epoch or 0) - 1)
    return passes, round(((state.epoch or 0) - passes) * state.max_steps) * accumulation


def refuse_dropping_of_stream(dataset: Any, args: Any) -> None:
    """Raises RecipeError where `dataloader_drop_last` would do nothing."""
    if isinstance(dataset, IterableDataset) and args.dataloader_drop_last:
        raise RecipeError(
            "dataloader_drop_last is true, but the training data is a stream, of which upstream drops nothing; leave "
            "it out, and drop rows in the stream itself"
        )


def refuse_empty_stream(dataset: Any, steps: int) -> None:
    """Raises RecipeError where a stream has ended before the first step, which upstream only warns of."""
    if steps == 0 and isinstance(dataset, IterableDataset):
        raise RecipeError("the stream of the training data ended before the first step, so nothing was trained")
