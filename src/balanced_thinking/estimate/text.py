"""An estimate as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from balanced_thinking.estimate.run import Estimate
from balanced_thinking.models.parts import short_count
from balanced_thinking.training.header import count_parameters

_GIB = 2**30


def describe_estimate(found: Estimate) -> str:
    return "\n".join(
        [*_describe_plan(found), "", *_describe_memory(found), "", *_describe_speed(found), "", *_rest(found)]
    )


def _describe_plan(found: Estimate) -> Iterator[str]:
    plan, sketch = found.plan, found.sketch
    trained = count_parameters(sketch.model).trainable
    parts = ", ".join(f"{part} {short_count(count)}" for part, count in sketch.parameters.items())
    total = sum(sketch.parameters.values())
    how = "full" if plan.recipe.lora is None else f"LoRA r {plan.recipe.lora.get('r', 8)}"
    how += f" on {plan.recipe.quantization}" if plan.recipe.quantization else ""
    yield f"model      {plan.recipe.model}: {short_count(total)} parameters ({parts})"
    yield f"trains     {short_count(trained)} ({how}), gradient checkpointing {'on' if plan.checkpoints else 'off'}"
    shared = f", {plan.sharding}" if plan.count > 1 else ""
    yield f"on         {plan.count} x {plan.device.name}{shared}, {_gib(plan.device.memory_bytes)} each"
    sizes = f"{plan.micro_batch} x {plan.accumulation} accumulated x {plan.count}"
    packed = "packed" if plan.arguments["packing"] else "padded"
    work = found.workload
    yield (
        f"batch      {plan.step_samples} samples a step ({sizes}), {packed}: {work.tokens:,.0f} tokens a micro-batch, "
        f"{work.supervised:,.0f} supervised; the largest {work.largest.places:,}"
    )


def _describe_memory(found: Estimate) -> Iterator[str]:
    yield "memory of a GPU at its peak" if not found.plan.device.is_cpu else "memory of the process at its peak"
    for part, size in found.memory.parts().items():
        if size:
            yield f"  {part:<16} {_gib(size):>11}"
    room = found.plan.device.memory_bytes - found.memory.total
    ends = f"fits, {_gib(room)} to spare" if room >= 0 else f"does not fit: {_gib(-room)} too much"
    yield f"  {'total':<16} {_gib(found.memory.total):>11}   {ends}"


def _describe_speed(found: Estimate) -> Iterator[str]:
    speed = found.speed
    yield (
        f"speed      {speed.tokens_per_second:,.0f} tokens a second ({speed.supervised_per_second:,.0f} supervised), "
        f"{speed.step_seconds:,.3g} s a step"
    )
    if speed.hours is None or speed.steps is None:
        yield "time       unknown: how many rows there are is not known; give --rows, or max_steps"
    else:
        gpus = f", {speed.hours * found.plan.count:,.3g} GPU hours" if found.plan.count > 1 else ""
        yield f"time       {speed.steps:,} steps: {speed.hours:,.3g} hours{gpus}"
    if found.cost is not None:
        yield f"cost       {found.cost:,.2f} at {found.price:g} a GPU hour"


def _rest(found: Estimate) -> Iterator[str]:
    yield "assumed"
    yield from (f"  - {line}" for line in found.assumptions)
    if found.fits:
        return
    yield ""
    yield "to make it fit, in this order (each on top of the ones before)"
    for number, change in enumerate(found.advice, 1):
        ends = "fits" if change.fits else f"{_gib(change.total_bytes)} in all"
        yield f"  {number}. {change.option}: saves {_gib(change.saved_bytes)}, {ends} ({change.why})"
    if not found.advice or not found.advice[-1].fits:
        yield "  nothing that is known here makes it fit: take a larger GPU"


def _gib(size: int) -> str:
    return f"{size / _GIB:,.2f} GiB" if abs(size) < 100 * _GIB else f"{size / _GIB:,.0f} GiB"
