"""Memory of one device, by part: what every step holds, and what a micro-batch adds at its peak."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from balanced_thinking.estimate.plan import OPTIMIZERS, Plan
from balanced_thinking.estimate.quantized import weight_bytes
from balanced_thinking.estimate.trace import Trace

# What is not a tensor of the model. GPUs: the CUDA context with the kernels of torch and cuBLAS, NCCL's buffers on
# several, and the share of the activations that the allocator loses to fragments: assumed until measured.
_CONTEXT_GPU, _NCCL, _FRAGMENTS_GPU = 900 * 2**20, 500 * 2**20, 0.06
# CPU: libraries that a first step loads, the rows, oneDNN's compiled products. Measured beyond the tensors of eight
# trainings of a tiny model, with a malloc that returns what is freed (benchmarks/estimate.py): 78 to 150 MiB with
# AVX-512, 65 to 100 without it.
_CONTEXT_CPU, _CONTEXT_AVX512 = 84 * 2**20, 118 * 2**20
_TOKEN_BYTES = 1181  # a token that the tokenizer knows: loading Gemma 3's, of 262,145, takes 295 MiB
_ZERO_BUCKETS = 2 * 5 * 10**8  # numbers: DeepSpeed's reduce and gather buckets by default
_ZERO_LIVE = 10**9  # numbers: DeepSpeed's stage3_max_live_parameters by default


@dataclass(frozen=True)
class Memory:
    """Bytes on one device at its peak, by part."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    head: int
    pictures: int
    communication: int
    overhead: int

    @property
    def total(self) -> int:
        return sum(self.parts().values())

    def parts(self) -> dict[str, int]:
        return {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimizer state": self.optimizer,
            "activations": self.activations,
            "loss head": self.head,
            "pictures": self.pictures,
            "communication": self.communication,
            "framework": self.overhead,
        }


def estimate_memory(plan: Plan, model: Any, trace: Trace, vocabulary: int = 0) -> Memory:
    """At the peak of the micro-batch of `trace`, or of the optimizer's step where that is higher.

    `vocabulary`: tokens that the tokenizer knows, which on a CPU is in the same memory.
    """
    ranks, sharded = plan.count, plan.sharding != "ddp"
    weights = weight_bytes(model)
    gradients = _gradient_bytes(plan, model)
    optimizer = _optimizer_bytes(plan, model)
    held = dict(trace.held_at_peak)
    of_peak = held.pop("gradients", 0) if not sharded else 0
    gradients_at_peak = -(-gradients // ranks) if sharded else of_peak
    after = gradients if not sharded else gradients_at_peak
    communication = _communication(plan, model, weights, gradients)
    stored = _stored_weights(plan, model, weights)
    step = _step_bytes(plan, model)
    moving = sum(held.values())
    if gradients_at_peak + moving < after + step:  # the optimizer's step is the peak
        gradients_at_peak, held = after, {"activations": step}
        moving = step
    return Memory(
        weights=stored,
        gradients=gradients_at_peak,
        optimizer=optimizer,
        activations=held.get("activations", 0),
        head=held.get("head", 0),
        pictures=held.get("pictures", 0),
        communication=communication,
        overhead=_overhead(plan, moving, vocabulary),
    )


def _trained(model: Any) -> list[Any]:
    return [one for one in model.parameters() if one.requires_grad]


def _gradient_bytes(plan: Plan, model: Any) -> int:
    """Of all ranks together. FSDP2 keeps them in the dtype of the weights that it stores."""
    stored = plan.weights_dtype.itemsize if plan.sharding == "fsdp2" else 0
    return sum(one.numel() * max(stored, one.element_size()) for one in _trained(model))


def _stored_weights(plan: Plan, model: Any, computed: int) -> int:
    """What is held between micro-batches, from the bytes of the copies that compute."""
    if plan.sharding == "fsdp2":  # in the recipe's dtype, a part on each device
        numbers = sum(one.numel() for one in model.parameters())
        return -(-numbers * plan.weights_dtype.itemsize // plan.count)
    if plan.sharding == "zero3":
        return -(-computed // plan.count)
    return computed


def _optimizer_bytes(plan: Plan, model: Any) -> int:
    trained = _trained(model)
    per_number = OPTIMIZERS[plan.optimizer]
    if per_number is None:
        total = sum(_adafactor_numbers(tuple(one.shape)) * 4 for one in trained)
    else:
        total = 0
        for one in trained:
            itemsize = one.element_size() if plan.sharding == "ddp" else plan.weights_dtype.itemsize
            exact = per_number in (4.0, 8.0)  # these keep their state in the dtype of the weights
            total += round(one.numel() * per_number * (itemsize / 4 if exact and "32bit" not in plan.optimizer else 1))
    if plan.optimizer == "sgd" and "momentum" in str(plan.arguments.get("optim_args") or ""):
        total += sum(one.numel() * one.element_size() for one in trained)
    if plan.sharding in ("zero2", "zero3"):  # the weights themselves in float32, and the gradients of the step
        total += sum(one.numel() * 8 for one in trained if one.element_size() < 4)
    return -(-total // plan.count) if plan.sharding != "ddp" else total


def _adafactor_numbers(shape: Sequence[int]) -> int:
    """A row and a column for each matrix, all numbers for a vector."""
    if len(shape) < 2:
        return shape[0] if shape else 1
    matrices = 1
    for length in shape[:-2]:
        matrices *= length
    return matrices * (shape[-1] + shape[-2])


def _step_bytes(plan: Plan, model: Any) -> int:
    """What an optimizer's step makes: `foreach` implementations copy a state, fused ones and 8-bit ones nothing."""
    if plan.device.is_cpu or "fused" in plan.optimizer or "8bit" in plan.optimizer or "bnb" in plan.optimizer:
        return 0
    total = sum(one.numel() * one.element_size() for one in _trained(model))
    return -(-total // plan.count) if plan.sharding != "ddp" else total


def _communication(plan: Plan, model: Any, weights: int, gradients: int) -> int:
    """Buffers that ranks exchange: DDP's copy of the gradients; complete weights of the layers that compute now."""
    if plan.count == 1:
        return 0
    itemsize = (plan.autocast or plan.weights_dtype).itemsize
    if plan.sharding == "ddp":
        return gradients
    if plan.sharding == "zero2":
        return min(_ZERO_BUCKETS, sum(one.numel() for one in _trained(model))) * itemsize
    units = sorted(_unit_numbers(model))
    layers, root = units, max(0, sum(one.numel() for one in model.parameters()) - sum(units))
    if plan.sharding == "zero3":
        return min(_ZERO_LIVE, sum(units) + root) * itemsize
    return (root + 3 * (layers[-1] if layers else 0)) * itemsize  # two layers, and the gradients of one


def _unit_numbers(model: Any) -> Iterator[int]:
    """Numbers of each repeated layer, which FSDP2 gathers one after the other."""
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) > 1:
            yield from (sum(one.numel() for one in layer.parameters()) for layer in module)


def _overhead(plan: Plan, moving: int, vocabulary: int) -> int:
    if plan.device.is_cpu:
        context = _CONTEXT_AVX512 if torch.backends.cpu.get_cpu_capability() == "AVX512" else _CONTEXT_CPU
        return context + _TOKEN_BYTES * vocabulary
    return _CONTEXT_GPU + (_NCCL if plan.count > 1 else 0) + round(_FRAGMENTS_GPU * moving)
