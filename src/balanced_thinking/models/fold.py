"""Fold an adapter's layers into the weights of its base: one rounding per weight, and a tied head stays what it was."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn


@torch.no_grad()
def fold_adapter(adapted: PeftModel) -> Any:
    """The base model with the adapter in its weights; `adapted` is used up.

    Equal to base and adapter side by side, up to rounding. In 16 bits each layer is merged in float32 and rounded once,
    which needs the memory of one layer more. PEFT does so for linear layers, but rounds an embedding's part twice.
    """
    _untie_head_from_adapted_embedding(adapted.get_base_model())
    with warnings.catch_warnings():
        # PEFT warns of tied layers, which are untied above, and of layers that are merged already.
        warnings.simplefilter("ignore", UserWarning)
        for part in list(adapted.modules()):
            if isinstance(part, BaseTunerLayer) and _is_of_16_bits(part):
                _merge_in_float32(part)
        folded = _without_false_ties(adapted.merge_and_unload())
    for parameter in folded.parameters():  # PEFT froze the base; this is a model as `from_pretrained` gives it
        parameter.requires_grad_(parameter.is_floating_point())
    return folded


def _without_false_ties(model: Any) -> Any:
    """The model; where embedding and head differ (`modules_to_save`), both of its configurations say so."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is not None and embedding.weight is not head.weight:
        for config in (model.config, model.config.get_text_config()):
            config.tie_word_embeddings = False
    return model


def _is_of_16_bits(part: BaseTunerLayer) -> bool:
    weight = getattr(part.get_base_layer(), "weight", None)
    return isinstance(weight, torch.Tensor) and weight.dtype in (torch.bfloat16, torch.float16)


def _merge_in_float32(part: Any) -> None:
    tensors = [one for one in part.get_base_layer().parameters(recurse=False) if one.is_floating_point()]
    before = [one.dtype for one in tensors]
    for one in tensors:
        one.data = one.data.float()
    part.merge()
    for one, dtype in zip(tensors, before, strict=True):
        one.data = one.data.to(dtype)


def _untie_head_from_adapted_embedding(model: Any) -> None:
    """Give the head weights of its own where an adapter changes the embedding that it shares: beside the base it does
    not change the head."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or not any(isinstance(one, BaseTunerLayer) for one in (embedding, head)):
        return
    inner = [one.get_base_layer() if isinstance(one, BaseTunerLayer) else one for one in (embedding, head)]
    if inner[0].weight is inner[1].weight:
        inner[1].weight = nn.Parameter(inner[1].weight.detach().clone(), requires_grad=False)
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = False
