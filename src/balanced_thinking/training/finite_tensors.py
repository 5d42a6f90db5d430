"""Whether tensors are finite, without waiting for a GPU before its answer is needed.

Shards of FSDP and ZeRO-3 are looked at as they are: each rank sees its own.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Named = Iterable[tuple[str, Any]]


def float_parts(tensors: Named) -> Iterator[tuple[str, Tensor]]:
    """The floating-point tensors with an element; of a sharded one this rank's part. float8 is computed in float32."""
    for name, tensor in tensors:
        local: Any = getattr(tensor, "ds_tensor", tensor)  # of ZeRO-3
        local = local.to_local() if hasattr(local, "to_local") else local  # of FSDP2
        if not isinstance(local, Tensor) or not local.is_floating_point() or not local.numel():
            continue
        if local.device.type != "meta":
            yield name, local.detach() if local.dtype.itemsize > 1 else local.detach().float()


@torch.no_grad()
def may_hold_nonfinite(tensors: Named) -> bool:
    """Whether a NaN or an infinity is possible: False only where every element is finite.

    One pass at the speed of memory, and one transfer for each device. A norm is finite only if all its elements are;
    huge elements overflow it too, so `find_nonfinite` has the last word.
    """
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
    for _, tensor in float_parts(tensors):
        groups[tensor.device, tensor.dtype].append(tensor)
    norms: dict[torch.device, list[Tensor]] = defaultdict(list)
    for (device, _), group in groups.items():
        norms[device] += [norm.float() for norm in torch._foreach_norm(group)]
    return not all(bool(torch.isfinite(torch.stack(found)).all()) for found in norms.values())


@torch.no_grad()
def find_nonfinite(tensors: Named) -> list[str]:
    """The names of the tensors with a NaN or an infinity. Reads every tensor, and waits for each."""
    return [
        name
        for name, tensor in float_parts(tensors)
        if not all(map(math.isfinite, torch.stack(torch.aminmax(tensor)).tolist()))  # a NaN anywhere comes out as NaN
    ]


def optimizer_tensors(optimizer: Any) -> Iterator[tuple[str, Any]]:
    """The tensors of an optimizer's state; nothing of one whose state is kept elsewhere."""
    state = getattr(optimizer, "state", None)
    for number, values in enumerate(state.values() if isinstance(state, Mapping) else ()):
        if isinstance(values, Mapping):
            yield from ((f"{name} of parameter {number}", value) for name, value in values.items())


@dataclass
class GradientNorms:
    """The L2 norms of the gradients of one step, before clipping: by parameter where they are known, and in total."""

    names: list[str] = field(default_factory=list)
    norms: Tensor | None = None
    total: Any = None

    def by_module(self) -> dict[str, float]:
        """Module -> its norm. A module is named down to its layer's number."""
        if self.norms is None:
            return {}
        squares: dict[str, float] = defaultdict(float)
        for name, norm in zip(self.names, self.norms.double().tolist(), strict=True):
            squares[name_of_module(name)] += norm * norm
        return {name: math.sqrt(value) for name, value in squares.items()}


def name_of_module(parameter: str) -> str:
    """`model.layers.3.mlp.up_proj.weight` -> `model.layers.3`; without a layer, the module that has the parameter."""
    parts = parameter.removeprefix("module.").removeprefix("base_model.model.").split(".")
    number = next((place for place, part in enumerate(parts) if part.isdecimal()), None)
    return ".".join(parts[: number + 1] if number is not None else parts[:-1] or parts)


@torch.no_grad()
def measure_gradients(named_parameters: Named) -> GradientNorms:
    """The norms of the gradients, as `torch.nn.utils.get_total_norm` computes their total, bit for bit.

    That function keeps no norms of the parts, and clipping multiplies all gradients by a norm that may be NaN.
    """
    found = [(name, parameter.grad) for name, parameter in named_parameters if parameter.grad is not None]
    grads = [grad for _, grad in found]
    plain = {(grad.device, grad.dtype) if type(grad) is Tensor else None for grad in grads}
    if len(plain) != 1 or None in plain:
        return GradientNorms(total=torch.nn.utils.get_total_norm(grads))
    norms = torch.stack(torch._foreach_norm(grads, 2.0))
    return GradientNorms([name for name, _ in found], norms, torch.linalg.vector_norm(norms, 2.0))


class DelayedRead:
    """The values of a small tensor, which are on their way to the host while the GPU goes on with its work."""

    def __init__(self, values: Tensor) -> None:
        self._event: Any = None
        self._values = values.detach().clone() if values.device.type == "cpu" else values.detach()
        if values.device.type == "cuda":
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def finish(self) -> list[float]:
        """Waits for the step that the values are of, and for nothing that was queued after it."""
        if self._event is not None:
            self._event.synchronize()
        return self._values.tolist()
