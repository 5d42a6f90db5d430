"""Seconds of a micro-batch on a GPU, computed: products at a share of the peak, the rest at one of the bandwidth."""

from __future__ import annotations

from typing import Any

import torch

from balanced_thinking.estimate.plan import OPTIMIZERS, Plan
from balanced_thinking.estimate.trace import Trace
from balanced_thinking.models.dtypes import dtype_name

# Shares of the published peaks that training reaches. Assumed: none of them was measured with this package.
PRODUCT_SHARE = 0.60
ATTENTION_SHARE = 0.35
BANDWIDTH_SHARE = 0.75
LINK_SHARE = 0.60
OVERLAP = 0.70  # of the exchange between GPUs that happens while they compute
LAUNCH_SECONDS = 6e-6  # for the CPU to start an operation, which a GPU waits for if it is faster


def micro_batch_seconds(plan: Plan, trace: Trace) -> float:
    computed = sum(count * _seconds(plan, operation) for operation, count in trace.operations.items())
    started = LAUNCH_SECONDS * sum(trace.operations.values())
    return max(computed, started)


def _seconds(plan: Plan, operation: Any) -> float:
    moved = operation.bytes_moved / (plan.device.bandwidth * BANDWIDTH_SHARE)
    if operation.kind == "other":
        return moved
    peak = _peak(plan, operation.dtype)
    share = ATTENTION_SHARE if operation.kind == "attention" else PRODUCT_SHARE
    return float(max(operation.flops / (peak * share), moved))


def _peak(plan: Plan, dtype: torch.dtype) -> float:
    return plan.device.peak_flops.get(dtype_name(dtype), plan.device.peak_flops["float32"])


def update_seconds(plan: Plan, model: Any) -> float:
    """Of an optimizer's step and the norm of the gradients: weights, gradients and states are read, and written."""
    numbers = sum(one.numel() for one in model.parameters() if one.requires_grad)
    numbers = numbers / plan.count if plan.sharding != "ddp" else numbers
    state = OPTIMIZERS[plan.optimizer] or 0.0
    moved = numbers * (4 * plan.weights_dtype.itemsize + 2 * state)
    return float(moved / (plan.device.bandwidth * BANDWIDTH_SHARE))


def exchange_seconds(plan: Plan, model: Any, micro_seconds: float) -> float:
    """Of a step's exchange between the GPUs of a machine, as far as computing does not hide it."""
    if plan.count == 1:
        return 0.0
    itemsize = (plan.autocast or plan.weights_dtype).itemsize
    share = (plan.count - 1) / plan.count
    weights = sum(one.numel() for one in model.parameters()) * itemsize * share
    trained = sum(one.numel() * one.element_size() for one in model.parameters() if one.requires_grad) * share
    moved = 2 * trained
    if plan.sharding in ("fsdp2", "zero3"):  # gathered for forward and backward, gradients scattered, each micro-batch
        moved = (2 * weights + trained) * plan.accumulation
    seconds = moved / (plan.device.link * LINK_SHARE)
    return max(seconds * (1 - OVERLAP), seconds - OVERLAP * micro_seconds * plan.accumulation)
