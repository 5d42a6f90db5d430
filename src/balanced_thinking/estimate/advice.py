"""What to change where a training does not fit: each change is estimated itself, the least intrusive first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from balanced_thinking.estimate.plan import Plan
from balanced_thinking.estimate.run import Estimate, Question, find_needed_memory
from balanced_thinking.estimate.workload import Workload

_SHORTER = 2  # divisor of max_length and of the picture budget
_MORE_GPUS = 8
_ADAPTER = {"r": 64, "lora_alpha": 128}


@dataclass(frozen=True)
class Change:
    """An option to set, and the memory of a GPU with it and all changes before it."""

    option: str
    why: str
    total_bytes: int
    saved_bytes: int
    fits: bool


def advise(found: Estimate, question: Question) -> Iterator[Change]:
    """Changes on top of each other, until the training fits or nothing is left to change."""
    plan, before = found.plan, found.memory.total
    workload: Workload | None = found.workload
    for option, why, change, keeps_batches in _list_changes(plan):
        next_plan = change(plan)
        if next_plan is plan:
            continue
        tried = find_needed_memory(next_plan, question, workload if keeps_batches else None)
        total = tried.memory.total
        if total >= before:
            continue
        fits = total <= next_plan.device.memory_bytes
        yield Change(option(next_plan), why, total, before - total, fits)
        plan, before, workload = next_plan, total, tried.workload
        if fits:
            return


class _Try(NamedTuple):
    """A change: what is written for it, what it costs, the plan with it (the same plan where it is no change).

    `keeps_batches`: whether micro-batches stay as they are.
    """

    option: Callable[[Plan], str]
    why: str
    change: Callable[[Plan], Plan]
    keeps_batches: bool


def _list_changes(first: Plan) -> list[_Try]:
    def name_sharding(now: Plan) -> str:
        return f"--sharding {now.sharding}" + (f" --count {now.count}" if now.count != first.count else "")

    return [
        _Try(
            lambda _: "gradient_checkpointing: true",
            "activations are computed twice, about a third more time; the same gradient",
            lambda now: now if now.checkpoints else now.with_training(gradient_checkpointing=True),
            True,
        ),
        _Try(
            lambda _: "packing: true",
            "no padding; the same gradient",
            lambda now: now if now.arguments["packing"] else now.with_training(packing=True),
            False,
        ),
        _Try(
            lambda now: f"per_device_train_batch_size: 1, gradient_accumulation_steps: {now.accumulation}",
            "the same step in smaller parts; the same gradient",
            _divide_micro_batch,
            False,
        ),
        _Try(name_sharding, "weights, gradients and optimizer state are shared among the GPUs", _shard_over_gpus, True),
        _Try(
            lambda _: "optim: adamw_bnb_8bit",
            "the optimizer's state in 8 bits; another update, though close",
            _shrink_optimizer,
            True,
        ),
        _Try(
            lambda _: "lora: {r: 64, lora_alpha: 128}, model_options: {dtype: bfloat16}",
            "an adapter is trained, the model stays as it is; another training: choose its learning rate anew",
            _train_adapter,
            True,
        ),
        _Try(
            lambda _: "quantization: nf4",
            "the frozen weights in 4 bits (QLoRA): they are rounded",
            _quantize_base,
            True,
        ),
        _Try(
            lambda now: f"image_options: {{max_pixels: {now.recipe.image_options['max_pixels']}}}",
            "smaller pictures: less is seen",
            _shrink_pictures,
            False,
        ),
        _Try(
            lambda now: f"max_length: {now.arguments['max_length']}",
            "longer samples are trimmed or left out (overflow)",
            _halve_max_length,
            False,
        ),
    ]


def _divide_micro_batch(now: Plan) -> Plan:
    if now.micro_batch == 1:
        return now
    total = now.micro_batch * now.accumulation
    return now.with_training(per_device_train_batch_size=1, gradient_accumulation_steps=total)


def _shard_over_gpus(now: Plan) -> Plan:
    fixed = now.is_sharded or now.device.is_cpu or now.recipe.quantization is not None or now.recipe.lora is not None
    return now if fixed else replace(now, sharding="fsdp2", count=max(now.count, _MORE_GPUS))


def _shrink_optimizer(now: Plan) -> Plan:
    sharded = now.sharding != "ddp" or now.device.is_cpu
    return now if sharded or "8bit" in now.optimizer else now.with_training(optim="adamw_bnb_8bit")


def _train_adapter(now: Plan) -> Plan:
    if now.recipe.lora is not None and now.weights_dtype == torch.bfloat16:
        return now
    options = {**now.recipe.model_options, "dtype": "bfloat16"}
    return now.with_recipe(lora=now.recipe.lora or dict(_ADAPTER), freeze=[], model_options=options)


def _quantize_base(now: Plan) -> Plan:
    if now.recipe.quantization is not None or now.recipe.lora is None:
        return now
    return replace(now.with_recipe(quantization="nf4"), sharding="ddp")


def _shrink_pictures(now: Plan) -> Plan:
    most = now.recipe.image_options.get("max_pixels")
    if not most:
        return now
    return now.with_recipe(image_options={**now.recipe.image_options, "max_pixels": int(most) // _SHORTER})


def _halve_max_length(now: Plan) -> Plan:
    longest = now.arguments["max_length"]
    return now.with_training(max_length=int(longest) // _SHORTER) if longest else now
