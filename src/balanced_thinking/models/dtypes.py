"""The names of number types. Torch is not imported, because quantization is checked before it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def dtype_name(dtype: torch.dtype) -> str:
    """torch.float32 -> `float32`"""
    return str(dtype).removeprefix("torch.")
