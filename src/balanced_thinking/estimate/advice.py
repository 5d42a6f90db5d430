"""What to change where a training does not fit: each change is estimated itself, the least intrusive first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import yaml

from balanced_thinking.estimate.plan import Plan
from balanced_thinking.estimate.run import Estimate, Question, find_needed_memory
from balanced_thinking.estimate.workload import Workload

_SHORTER = 2  # divisor of max_length and of the picture budget
_MORE_GPUS = 8
_ONE_LINE = 10**6
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
    for change, why, keeps_batches in _list_changes():
        next_plan = change(plan)
        if next_plan is plan:
            continue
        tried = find_needed_memory(next_plan, question, workload if keeps_batches else None)
        total = tried.memory.total
        if total >= before:
            continue
        fits = total <= next_plan.device.memory_bytes
        if next_plan.step_samples != plan.step_samples:
            why += f"; a step has {next_plan.step_samples} samples then, not {plan.step_samples}"
        yield Change(_name_difference(plan, next_plan), why, total, before - total, fits)
        plan, before, workload = next_plan, total, tried.workload
        if fits:
            return


def _name_difference(before: Plan, after: Plan) -> str:
    """What a user sets: options of `estimate` itself, then keys of the recipe and training arguments."""
    options = [
        f"--{name} {getattr(after, name)}"
        for name in ("sharding", "count")
        if getattr(after, name) != getattr(before, name)
    ]
    keys = {name: value for name, value in vars(after.recipe).items() if value != getattr(before.recipe, name)}
    keys |= {name: value for name, value in after.arguments.items() if value != before.arguments[name]}
    written = yaml.safe_dump(keys, default_flow_style=True, sort_keys=False, width=_ONE_LINE).strip()[1:-1]
    return ", ".join(filter(None, (" ".join(options), written)))


class _Try(NamedTuple):
    """A change: the plan with it (the same plan where it is no change), and what it costs.

    `keeps_batches`: whether micro-batches stay as they are.
    """

    change: Callable[[Plan], Plan]
    why: str
    keeps_batches: bool


def _list_changes() -> list[_Try]:
    return [
        _Try(
            lambda now: now if now.checkpoints else now.with_training(gradient_checkpointing=True),
            "activations are computed twice, about a third more time; the same gradient",
            True,
        ),
        _Try(
            lambda now: now if now.arguments["packing"] else now.with_training(packing=True),
            "no padding; the same gradient",
            False,
        ),
        _Try(_divide_micro_batch, "the same step in smaller parts; the same gradient", False),
        _Try(_shard_over_gpus, "weights, gradients and optimizer state are shared among the GPUs", True),
        _Try(_shrink_optimizer, "the optimizer's state in 8 bits; another update, though close", True),
        _Try(
            _train_adapter,
            "an adapter is trained, the model stays as it is; another training: choose its learning rate anew",
            True,
        ),
        _Try(_halve_frozen_weights, "the frozen weights in 16 bits: they are rounded", True),
        _Try(_quantize_base, "the frozen weights in 4 bits (QLoRA): they are rounded", True),
        _Try(_shrink_pictures, "smaller pictures: less is seen", False),
        _Try(_halve_max_length, "longer samples are trimmed or left out (overflow)", False),
    ]


def _divide_micro_batch(now: Plan) -> Plan:
    if now.micro_batch == 1:
        return now
    total = now.micro_batch * now.accumulation
    return now.with_training(per_device_train_batch_size=1, gradient_accumulation_steps=total)


def _shard_over_gpus(now: Plan) -> Plan:
    if now.is_sharded or now.device.is_cpu or now.recipe.quantization is not None or now.recipe.lora is not None:
        return now
    count = max(now.count, _MORE_GPUS)
    accumulation = max(1, now.accumulation * now.count // count)
    return replace(now, sharding="fsdp2", count=count).with_training(gradient_accumulation_steps=accumulation)


def _shrink_optimizer(now: Plan) -> Plan:
    sharded = now.sharding != "ddp" or now.device.is_cpu
    return now if sharded or "8bit" in now.optimizer else now.with_training(optim="adamw_bnb_8bit")


def _train_adapter(now: Plan) -> Plan:
    return now if now.recipe.lora is not None else _halve_weights(now.with_recipe(lora=dict(_ADAPTER), freeze=[]))


def _halve_frozen_weights(now: Plan) -> Plan:
    return now if now.recipe.lora is None else _halve_weights(now)


def _halve_weights(now: Plan) -> Plan:
    """Weights in 16 bits, in which the device computes, too."""
    if now.weights_dtype.itemsize == 2:
        return now
    name = "bfloat16" if now.device.has_bfloat16 or now.device.is_cpu else "float16"
    changed = now.with_recipe(model_options={**now.recipe.model_options, "dtype": name})
    return changed if name == "bfloat16" else changed.with_training(fp16=True)


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
