"""A model's own rotary positions without its weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import PreTrainedModel


class RopeIndex:
    """A model's own `get_rope_index` without its weights, so that the collator can take it into data-loader workers."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.kind, self.config = type(model), model.config

    @classmethod
    def from_model(cls, model: PreTrainedModel) -> RopeIndex | None:
        """From `model` or the part below its head; None where positions are plain."""
        return next((cls(part) for part in (model, model.base_model) if hasattr(part, "get_rope_index")), None)

    def __call__(self, **inputs: Tensor) -> Tensor:
        """(axes, E, L) positions of right-padded samples."""
        bare: Any = object.__new__(self.kind)
        bare.__dict__["config"] = self.config
        return bare.get_rope_index(**inputs)[0]
