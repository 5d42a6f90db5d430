"""The header of a run in the log, before its first step: model, data, batch, steps and output folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import TrainerCallback

from balanced_thinking.data.mixture import describe_data
from balanced_thinking.models.dtypes import dtype_name
from balanced_thinking.models.parts import count_numbers, short_count
from balanced_thinking.training.algorithms import describe_algorithm
from balanced_thinking.training.options import given_segment_options
from balanced_thinking.training.recipe import Recipe

logger = logging.getLogger(__name__)


class StartHeader(TrainerCallback):
    """Writes the header to the log when training begins, because only then the number of steps is known.

    `dropped` is the number of bad rows that were left out. Parameters are counted before a wrapper shards them.
    """

    def __init__(self, recipe: Recipe, trainer: Any, out: Path, dropped: int) -> None:
        self.recipe, self.out, self.dropped = recipe, out, dropped
        self.rows, self.ranks = len(trainer.train_dataset), trainer.accelerator.num_processes
        self.dtype = dtype_name(trainer.model.dtype)
        self.parameters = count_parameters(trainer.model)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            for name, text in self._header_lines(args, state):
                logger.info("%-8s %s", name, text)

    def _header_lines(self, args: Any, state: Any) -> Iterator[tuple[str, str]]:
        total, trainable = self.parameters
        share = f"{short_count(trainable)} trainable of {short_count(total)} parameters"
        yield "model", f"{self.recipe.model}, {share} ({100 * trainable / total:.3g} %)"
        yield "device", f"{describe_device(args.device)}, weights in {self.dtype}{describe_autocast(args)}"
        rows = "bad row" if self.dropped == 1 else "bad rows"
        left_out = f", {self.dropped} {rows} left out" if self.dropped else ""
        yield "data", f"{describe_data(self.recipe.data)}, {self.recipe.split}: {self.rows:,} examples{left_out}"
        if (loss := describe_algorithm(args) if self.recipe.stage == "grpo" else describe_weighting(args)) is not None:
            yield "loss", loss
        if self.recipe.stage == "grpo":
            yield "rewards", describe_rewards(args)
        yield "batch", describe_batch(self.recipe.stage, args, self.ranks)
        taken = f", {state.global_step:,} of them taken" if state.global_step else ""
        yield "steps", f"{state.max_steps:,}{taken}"
        yield "writes", str(self.out)


class ParameterCounts(NamedTuple):
    total: int
    trainable: int


_WEIGHTINGS = {
    "uniform": "plain SFT, every token counts alike (uniform)",
    "example-mean": "plain SFT, every example counts alike (example-mean)",
    "sftkey": "plain SFT, then the answer alone (sftkey)",
}


def describe_weighting(args: Any) -> str:
    """What weighs the tokens, with the options that play no part in it."""
    chosen, schedule = args.chosen_weighting, args.weight_schedule()
    if chosen == "scale":
        ends = (schedule.weights(0.0, None), schedule.weights(1.0, args.adaptive_latest))
        first, last = (f"{one.think:.3g} / {one.answer:.3g}" for one in ends)
        return f"SCALe, {schedule.name}: reasoning / answer {first} to {last}"
    idle = [] if chosen == "sftkey" else list(given_segment_options(vars(args)))
    unused = f"; without effect: {', '.join(idle)} (for --weighting scale)" if idle else ""
    return f"{_WEIGHTINGS[chosen]}{unused}"


def describe_rewards(args: Any) -> str:
    """The rewards of GRPO with their weights."""
    return ", ".join(f"{weight:g} x {name}" for name, weight in args.rewards.items())


_AUTOCAST = (("bf16", "bfloat16"), ("fp16", "float16"))


def count_parameters(model: Any) -> ParameterCounts:
    """A parameter that ZeRO-3 has sharded counts completely, a quantized one by its numbers."""
    sizes = [(count_numbers(p), p.requires_grad) for p in model.parameters()]
    return ParameterCounts(sum(size for size, _ in sizes), sum(size for size, trainable in sizes if trainable))


def describe_batch(stage: str, args: Any, ranks: int) -> str:
    size = args.per_device_train_batch_size * args.gradient_accumulation_steps * ranks
    parts = f"{args.per_device_train_batch_size} per device x {args.gradient_accumulation_steps} accumulated"
    what = "completions" if stage == "grpo" else "examples"
    return f"{size} {what} a step ({parts} x {ranks} {'rank' if ranks == 1 else 'ranks'})"


def describe_autocast(args: Any) -> str:
    return next((f", computed in {name}" for flag, name in _AUTOCAST if getattr(args, flag)), "")


def describe_device(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
