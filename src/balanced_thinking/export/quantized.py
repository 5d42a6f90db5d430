"""A QLoRA run's model as it was trained, on its quantized base: what an export of dense weights is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from balanced_thinking.export.samples import OwnAnswer, SampleOptions, answer_samples, open_samples
from balanced_thinking.models.load import LoadedModel, load_model
from balanced_thinking.models.quantization import quantization_of, read_base_quantization


def load_as_trained(folder: str) -> LoadedModel | None:
    """The adapter beside its quantized base, on a GPU where there is one; None where the base was not quantized."""
    stored = read_base_quantization(folder)
    if stored is None:
        return None
    dtype = getattr(torch, stored["base_dtype"])
    loaded = load_model(folder, quantization=quantization_of(stored), dtype=dtype)
    if torch.cuda.is_available():
        loaded.model.to("cuda")
    return loaded


@dataclass(frozen=True)
class Rounding:
    """How many of a dense model's answers are those of the quantized base `name` that was trained, of how many."""

    name: str
    equal: int
    asked: int

    def describe(self) -> str:
        return (
            f"{self.equal} of {self.asked} answers of the dense weights are those of the {self.name} base that was "
            "trained, token for token"
        )


def compare_with_trained(
    folder: str, answers: Sequence[OwnAnswer], config: Mapping[str, Any], options: SampleOptions
) -> Rounding | None:
    """Compare a dense model's answers with those of the quantized one; None where the base was not quantized.

    The dense weights are the values that the quantized ones stand for, so that only rounding differs. int8 also rounds
    what goes into each layer, which no dense model does.
    """
    if not answers or (loaded := load_as_trained(folder)) is None:
        return None
    trained = answer_samples(loaded, config, open_samples(config, options, loaded.processor), options)
    equal = sum(one.ids == other.ids for one, other in zip(answers, trained, strict=True))
    return Rounding(str(quantization_of(read_base_quantization(folder))), equal, len(answers))
