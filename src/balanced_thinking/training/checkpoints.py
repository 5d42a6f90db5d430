"""Loading a checkpoint back into a model, every tensor of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from peft import PeftModel

_FULL_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def load_weights(checkpoint: str, model: Any, upstream: Callable[..., None]) -> None:
    """Load a fully fine-tuned `checkpoint` strictly; anything else (adapters, FSDP or DeepSpeed shards) goes
    `upstream`.

    transformers' own loader reads the file's keys as they are, but `save_pretrained` renames most of a VLM's, so that
    it silently loads 1 of 57 tensors of Qwen2.5-VL (transformers #43701). `from_pretrained` knows the renaming.
    """
    whole = any((Path(checkpoint) / name).is_file() for name in _FULL_WEIGHTS)
    if isinstance(model, PeftModel) or not whole:
        upstream(checkpoint, model)
        return
    saved = type(model).from_pretrained(checkpoint, torch_dtype=model.dtype)
    model.load_state_dict(saved.state_dict(), strict=True)
