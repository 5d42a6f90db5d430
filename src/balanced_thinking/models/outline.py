"""A model without its weights: classes, names and shapes from its configuration, on torch's meta device."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from balanced_thinking.models.find import TINY_PREFIX, TinySize, adapter_base_name, find_model_source
from balanced_thinking.models.processor import is_vision_model, load_config
from balanced_thinking.models.tiny import build_tiny


def outline_model(name: str, *, size: TinySize | None = None) -> Any:
    """The model that `load_model(name)` gives, with weights that take no memory and hold nothing.

    Of an adapter it is the base, whose shapes the merged model has. Only the configuration is read, from a folder or
    the hub. Raises what `load_model` raises for a model that is not there.
    """
    if name.startswith(TINY_PREFIX):
        with torch.device("meta"):
            return build_tiny(name.removeprefix(TINY_PREFIX), size=size)[0]
    path = find_model_source(name)
    if (base := adapter_base_name(path)) is not None:
        return outline_model(base)
    auto = AutoModelForImageTextToText if is_vision_model(path) else AutoModelForCausalLM
    config = load_config(path)
    with torch.device("meta"):
        return auto.from_config(config)
