"""Linear layers in 4 or 8 bits without numbers: they are made dense for each product, forward and backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from balanced_thinking.models.parts import ModelParts

# Bytes of a weight: nf4 has half a byte, an 8-bit scale for 64 weights and a float32 one for 256 scales; int8 has a
# byte and a float32 scale for each row.
BYTES = {"nf4": 0.5 + 1 / 64 + 4 / (64 * 256), "int8": 1.0}


class QuantizedLinear(nn.Linear):
    """Stands for bitsandbytes' layers. `stored` holds the bytes; `weight` has the shape, and no storage of its own."""

    stored: Tensor


class _DenseForTheProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, stored: Tensor, shape: tuple[int, int]) -> Tensor:
        ctx.shape, ctx.dtype = shape, inputs.dtype
        dense = torch.empty(shape, dtype=inputs.dtype, device=inputs.device)
        return inputs @ dense.t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        dense = torch.empty(ctx.shape, dtype=ctx.dtype, device=upstream.device)
        return upstream @ dense, None, None


def quantize_layers(model: Any, quantization: str) -> None:
    """Replace the language model's linear layers, as `models.quantization` does."""
    for name in ModelParts(model).linear_layers(["language"]):
        layer = model.get_submodule(name)
        count = layer.weight.numel()
        layer.__class__ = QuantizedLinear
        layer.weight.requires_grad_(False)
        layer.register_buffer(
            "stored", torch.empty(round(count * BYTES[quantization]), dtype=torch.uint8, device="meta")
        )
        layer.forward = _make_forward(layer)


def _make_forward(layer: Any) -> Any:
    def forward(inputs: Tensor) -> Tensor:
        lower = inputs.to(layer.weight.dtype)  # in which bitsandbytes computes
        found = _DenseForTheProduct.apply(lower, layer.stored, tuple(layer.weight.shape))
        return (found if layer.bias is None else found + layer.bias).to(inputs.dtype)

    return forward


def weight_bytes(model: Any) -> int:
    """Bytes of parameters and buffers; of quantized layers what they store."""
    quantized = {id(one.weight) for one in model.modules() if isinstance(one, QuantizedLinear)}
    tensors = [one for one in model.parameters() if id(one) not in quantized] + list(model.buffers())
    storages = {one.untyped_storage()._cdata: one.untyped_storage().nbytes() for one in tensors}
    return sum(storages.values())
