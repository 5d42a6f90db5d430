"""Optimizer steps without a picture, where batches without one get a blank one (`ScaleCollator.always_image`)."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor
from transformers import TrainerCallback

from balanced_thinking.models.parts import ModelParts
from balanced_thinking.training.finite_tensors import DelayedRead

logger = logging.getLogger(__name__)
_PICTURE_PARTS = ("vision", "projector")


class StillPictureParts(TrainerCallback):
    """Keeps the picture tower and the projector as they are in a step in which no sample has a picture.

    Blank pictures give them gradients of zero, by which AdamW moves them: by its momentum, and by weight decay. A
    process without blank pictures gives them no gradient at all. With `shares_gradients`, which DeepSpeed and FSDP1
    have, a parameter has no gradient of its own to take away; then the first such step is reported.
    """

    def __init__(self, model: Any, shares_gradients: bool) -> None:
        self._model, self._parts, self._shares_gradients = model, ModelParts(model), shares_gradients
        self._pictures: DelayedRead | None = None
        self._reported = False

    def note_pictures(self, count: Tensor) -> None:
        """(1,): how many samples of the coming optimizer step have a picture, on all ranks."""
        self._pictures = DelayedRead(count)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._pictures is None or self._pictures.finish() != [0]:
            return
        trained = [one for name, one in self._model.named_parameters() if self._is_reached_by_pictures(name, one)]
        if not self._shares_gradients:
            for parameter in trained:
                parameter.grad = None
        elif trained and not self._reported and state.is_world_process_zero:
            self._reported = True
            logger.warning(
                "no sample of optimizer step %d has a picture, and this kind of sharding still moves the picture tower "
                "by its momentum, unlike one process; to be exact, use FSDP2, or freeze: [vision, projector]",
                state.global_step + 1,
            )

    def _is_reached_by_pictures(self, name: str, parameter: Any) -> bool:
        return parameter.requires_grad and self._parts.find_part(name) in _PICTURE_PARTS
