"""An estimate: the plan, its model and its data, traced; memory, time and cost from the trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

from balanced_thinking.estimate import gpu_time
from balanced_thinking.estimate.cpu_time import CpuRates, update_seconds
from balanced_thinking.estimate.devices import find_device
from balanced_thinking.estimate.memory import Memory, estimate_memory
from balanced_thinking.estimate.model import Sketch, sketch_model
from balanced_thinking.estimate.plan import Plan, read_plan
from balanced_thinking.estimate.step import trace_micro_batch
from balanced_thinking.estimate.trace import Trace
from balanced_thinking.estimate.workload import Workload, find_workload
from balanced_thinking.loss.chunks import CPU_POLICY, AssumedDevice, gpu_policy
from balanced_thinking.models.dtypes import dtype_name
from balanced_thinking.training.dry_run import count_steps
from balanced_thinking.training.header import count_parameters

_CPU_SECONDS_OF_SAMPLE = 0.003  # of the trainer's own work around a micro-batch, a sample


@dataclass(frozen=True)
class Question:
    """What the command line asks beside the recipe.

    lengths: mean and longest in tokens, in place of the data's. picture_side: pixels of an assumed picture. rows: of
    the data, where it is not read. price: of a GPU hour.
    """

    gpu: str = "h100"
    count: int | None = None
    sharding: str | None = None
    lengths: tuple[int, int] | None = None
    picture_side: int | None = None
    rows: int | None = None
    price: float | None = None


@dataclass(frozen=True)
class Speed:
    """Seconds of an optimizer step, what is in it, and what follows for the run; None where steps are unknown."""

    step_seconds: float
    tokens_per_second: float
    supervised_per_second: float
    steps: int | None
    hours: float | None
    flops_per_second: float  # of one device, in the products of the model


@dataclass(frozen=True)
class Estimate:
    plan: Plan
    sketch: Sketch
    workload: Workload
    memory: Memory
    speed: Speed
    price: float | None
    assumptions: tuple[str, ...]
    advice: tuple[Any, ...] = field(default=())

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.plan.device.memory_bytes

    @property
    def cost(self) -> float | None:
        known = self.price is not None and self.speed.hours is not None
        return self.price * self.speed.hours * self.plan.count if known else None  # type: ignore[operator]

    def conclusion(self) -> str:
        """One line for the end."""
        needed, there = (size / 2**30 for size in (self.memory.total, self.plan.device.memory_bytes))
        where = "this machine" if self.plan.device.is_cpu else f"a {self.plan.device.name}"
        verb = "fits" if self.fits else "does not fit"
        return f"{self.plan.recipe.model} {verb}: {needed:,.1f} GiB are needed and {where} has {there:,.1f}"

    def to_dict(self) -> dict[str, Any]:
        """For `--json`: bytes, seconds, hours."""
        plan = self.plan
        trained = count_parameters(self.sketch.model).trainable
        return {
            "model": plan.recipe.model,
            "gpu": plan.device.name,
            "count": plan.count,
            "sharding": plan.sharding if plan.count > 1 else None,
            "parameters": {"total": sum(self.sketch.parameters.values()), "trained": trained, **self.sketch.parameters},
            "memory_bytes": self.memory.parts() | {"total": self.memory.total, "available": plan.device.memory_bytes},
            "fits": self.fits,
            "speed": asdict(self.speed),
            "price_per_gpu_hour": self.price,
            "cost": self.cost,
            "rows": self.workload.rows,
            "measured": plan.device.is_cpu,
            "assumptions": list(self.assumptions),
            "advice": [asdict(one) for one in self.advice],
        }


def estimate_training(
    paths: Sequence[str | Path], overrides: Sequence[tuple[str, str]] = (), question: Question | None = None
) -> Estimate:
    """The estimate of a recipe, with advice where it does not fit.

    Raises EstimateError and RecipeError for what cannot be estimated.
    """
    from balanced_thinking.estimate.advice import advise

    question = question or Question()
    plan = read_plan(
        paths,
        overrides,
        find_device(question.gpu),
        count=question.count,
        sharding=question.sharding,
        reads_data=question.lengths is None,
    )
    found = estimate_plan(plan, question)
    return found if found.fits else replace(found, advice=tuple(advise(found, question)))


class Needed(NamedTuple):
    """What a plan needs, with what it was found from."""

    memory: Memory
    sketch: Sketch
    workload: Workload
    largest: Trace


def find_needed_memory(plan: Plan, question: Question, workload: Workload | None = None) -> Needed:
    """Memory alone. `workload` where it is known already."""
    sketch = sketch_model(plan)
    workload = workload or find_workload(plan, sketch.model, question.lengths, question.picture_side)
    largest = trace(plan, sketch.model, workload.largest.inputs)
    return Needed(estimate_memory(plan, sketch.model, largest, workload.vocabulary), sketch, workload, largest)


def estimate_plan(plan: Plan, question: Question) -> Estimate:
    """The estimate of one plan, without advice."""
    memory, sketch, workload, largest = find_needed_memory(plan, question)
    typical = largest if workload.typical is workload.largest else trace(plan, sketch.model, workload.typical.inputs)
    speed = _find_speed(plan, sketch, workload, typical, question)
    return Estimate(plan, sketch, workload, memory, speed, question.price, _list_assumptions(plan, sketch, workload))


def trace(plan: Plan, model: Any, inputs: dict[str, Any]) -> Trace:
    """A micro-batch on the plan's device."""
    policy = CPU_POLICY if plan.device.is_cpu else gpu_policy(plan.device.memory_bytes)
    shares_copies = plan.sharding != "ddp"
    device = AssumedDevice(policy, None if shares_copies else plan.autocast)
    return trace_micro_batch(model, inputs, device, accumulated=plan.accumulation > 1, sharded=shares_copies)


def _find_speed(plan: Plan, sketch: Sketch, workload: Workload, typical: Trace, question: Question) -> Speed:
    if plan.device.is_cpu:
        trained = count_parameters(sketch.model).trainable
        micro = CpuRates().micro_batch_seconds(typical) + workload.host_seconds
        micro += _CPU_SECONDS_OF_SAMPLE * workload.typical.samples
        step = micro * plan.accumulation + update_seconds(trained, plan.optimizer)
    else:
        micro = gpu_time.micro_batch_seconds(plan, typical)
        step = micro * plan.accumulation + gpu_time.update_seconds(plan, sketch.model)
        step += gpu_time.exchange_seconds(plan, sketch.model, micro)
    batches = plan.accumulation * plan.count
    steps = _count_steps(plan, workload.rows or question.rows)
    return Speed(
        step_seconds=step,
        tokens_per_second=workload.tokens * batches / step,
        supervised_per_second=workload.supervised * batches / step,
        steps=steps,
        hours=None if steps is None else steps * step / 3600,
        flops_per_second=typical.flops() * plan.accumulation / step,
    )


def _count_steps(plan: Plan, rows: int | None) -> int | None:
    """As the trainer will count them; None where neither `max_steps` nor the rows are known."""
    if rows is None and plan.arguments["max_steps"] <= 0:
        return None
    args = SimpleNamespace(**{**plan.arguments, "world_size": plan.count})
    return count_steps("sft", args, rows or 0)


def _list_assumptions(plan: Plan, sketch: Sketch, workload: Workload) -> tuple[str, ...]:
    low = plan.autocast
    computed = f", computed in {dtype_name(low)}" if low else ""
    weights = dtype_name(plan.weights_dtype)
    found = [f"sizes of {plan.recipe.model}: {sketch.source}", *workload.notes]
    found.append(f"weights in {weights}{computed}; optimizer {plan.optimizer}")
    found.append("memory is that of the largest micro-batch looked at; a larger one in the run takes more")
    if plan.device.is_cpu:
        found.append(f"rates measured on this machine now, with {torch.get_num_threads()} threads")
        found.append("malloc keeps nothing that was freed; glibc's does, for a tiny model up to as much again")
    else:
        found += [
            f"computed, not measured: no {plan.device.name} has run this package for these figures",
            f"products at {gpu_time.PRODUCT_SHARE:.0%} of the published peak, attention at "
            f"{gpu_time.ATTENTION_SHARE:.0%}, the rest at {gpu_time.BANDWIDTH_SHARE:.0%} of the memory's bandwidth",
            "pictures are decoded by the loader's processes meanwhile; saving and evaluating are not counted",
        ]
    if plan.count > 1:
        found.append(f"{plan.count} GPUs of one machine; {gpu_time.OVERLAP:.0%} of their exchange is hidden")
    if plan.recipe.quantization == "int8":
        found.append("int8: the products are taken to be as fast as dense ones")
    if plan.arguments.get("torch_compile"):
        found.append("torch_compile is not looked at: it may need less of both")
    return tuple(found)
