"""An adapter as a complete model: its base, dequantized where it was quantized, with the adapter in its weights."""

from __future__ import annotations

from typing import Any

import torch

from balanced_thinking.models.load import load_model


def merge_adapter(folder: str, dtype: torch.dtype = torch.float32) -> Any:
    """The model of a run, a checkpoint or an adapter's folder, with every weight in `dtype` and no adapter left.

    A folder of complete weights is loaded as it is. Raises as `load_model` does.
    """
    return load_model(folder, dtype=dtype).model
