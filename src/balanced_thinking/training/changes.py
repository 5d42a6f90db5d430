"""What changes when a run is resumed with other settings: said before it goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import TrainerCallback, get_scheduler

from balanced_thinking.config.foreign_json import read_json_file
from balanced_thinking.loss.schedules import FIXED_WEIGHTS
from balanced_thinking.runs.manifest import DamagedFilesError, read_about
from balanced_thinking.training.default_weights import EARLIER_DEFAULTS, WEIGHTING_OPTIONS
from balanced_thinking.training.options import ScaleSFTOptions
from balanced_thinking.training.recipe import HARMLESS_KEYS, Recipe, describe_changes
from balanced_thinking.training.weighing import TokenWeigher

logger = logging.getLogger(__name__)
_STEP_COUNT_KEYS = {"training.max_steps", "training.num_train_epochs"}  # `ScheduleChange` says what these change
ABOUT_WEIGHTING = "weighting"  # what a checkpoint's manifest calls the options of its loss
_EFFECTS = {
    "overflow": "samples that are too long are treated so from now on; those that were left out at the start stay out",
    "on_nonfinite": "steps that are not finite are treated so from now on",
    "on_bad_row": "rows that turn out to be bad are treated so from now on",
}


class ResumeState(NamedTuple):
    """Where a checkpoint stopped: optimizer steps taken, and how many its schedules were made for."""

    step: int
    max_steps: int


def read_resume_state(checkpoint: str) -> ResumeState:
    """Raises OSError without a `trainer_state.json`, and DamagedFilesError for one that does not say both."""
    file = Path(checkpoint) / "trainer_state.json"
    try:
        state = read_json_file(file)
        return ResumeState(int(state["global_step"]), int(state["max_steps"]))
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        raise DamagedFilesError(
            f"{file} does not say global_step and max_steps ({type(error).__name__}: {str(error)[:100]}); resume from "
            "another checkpoint"
        ) from None


def describe_resume_changes(before: Recipe, now: Recipe) -> Iterator[str]:
    """One line for each changed setting that affects later steps."""
    for line in describe_changes(before, now, HARMLESS_KEYS | _STEP_COUNT_KEYS):
        name = line.split(" was ", 1)[0].removeprefix("training.")
        yield f"{line}: {_EFFECTS[name]}" if name in _EFFECTS else line


def check_weighting(checkpoint: Path, trainer: Any) -> None:
    """Logs what weighs the tokens otherwise than before the checkpoint.

    Raises ValueError where only a default has changed: what is given leaves the weights open, and the checkpoint has
    those of an earlier default; or it says none, as those of earlier versions. One that neither has our manifest nor
    has logged a step is not recognised.
    """
    about, options = read_about(checkpoint), trainer.weigher.options
    before, now = about.get(ABOUT_WEIGHTING), trainer.weigher.describe()
    earlier = TokenWeigher(_with_earlier_defaults(options)).describe()
    if before is None:
        if earlier != now and (about.get("kind") == "checkpoint" or _has_logged_weights(checkpoint)):
            raise ValueError(
                f"{checkpoint} does not say what weighed its tokens (it was saved by an earlier version, which had "
                "other defaults, or has no manifest), and not all weights are given; set those that it was trained "
                "with, such as think_weight_start=0.9 and think_weight_end=0.5, or weighting='uniform'"
            )
        return
    changed = [name for name in now if name in before and before[name] != now[name]]
    said = ", ".join(f"{name} was {before[name]} and is {now[name]}" for name in changed)
    weights = {name: before[name] for name in WEIGHTING_OPTIONS if name in before}
    as_before = all(earlier.get(name) == value for name, value in weights.items())
    if (as_before or not options.states_weights) and not weights.keys().isdisjoint(changed):
        if weights.get("schedule") in FIXED_WEIGHTS:  # it needs no end points, and takes none of the answer
            weights = {name: weights[name] for name in ("weighting", "schedule")}
        raise ValueError(
            f"{checkpoint}: {said}, because they are not given and the defaults have changed; set those of the "
            f"checkpoint, {', '.join(f'{name}={value!r}' for name, value in weights.items())}"
        )
    if changed and trainer.is_world_process_zero():
        logger.warning("%s: %s; the next steps follow the new setting", checkpoint, said)


def _with_earlier_defaults(options: ScaleSFTOptions) -> ScaleSFTOptions:
    values = {one.name: getattr(options, one.name) for one in fields(ScaleSFTOptions)}
    left_open = {name: value for name, value in EARLIER_DEFAULTS.items() if values[name] is None}
    return ScaleSFTOptions(**values | left_open)


def _has_logged_weights(checkpoint: Path) -> bool:
    """Whether our trainer wrote the log of a checkpoint; others log no weight of the think segment."""
    state = read_json_file(checkpoint / "trainer_state.json")
    return any("w_think" in row for row in state.get("log_history", []))


class ScheduleChange(TrainerCallback):
    """Says at the start what another number of steps changes. Only then the number is known."""

    def __init__(self, trainer: Any, before: ResumeState) -> None:
        self.trainer, self.before = trainer, before

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        line = describe_schedule_change(self.trainer, self.before, state.max_steps)
        if line is not None and state.is_world_process_zero:
            logger.info("%s", line)


def describe_schedule_change(trainer: Any, state: ResumeState, steps: int) -> str | None:
    """What another number of steps does to weights and learning rate at the next step; None if it is the same."""
    args = trainer.args
    if steps == state.max_steps or state.step == 0:
        return None
    parts = [f"max_steps was {state.max_steps:,} and is {steps:,}: all schedules are stretched over the new number"]
    if hasattr(trainer, "schedule") and args.chosen_weighting == "scale" and trainer.schedule.name != "adaptive":
        weigh = trainer.schedule.weights
        last, new, end = (
            f"{one.think:.3f} / {one.answer:.3f}"
            for one in map(weigh, ((state.step - 1) / max(1, state.max_steps - 1), state.step / max(1, steps - 1), 1.0))
        )
        parts.append(
            f"the weights of reasoning / answer go from {last} at step {state.step:,} to {new} at step "
            f"{state.step + 1:,}, and end at {end}"
        )
    rates = _learning_rates(args, state, steps)
    if rates is not None:
        parts.append(f"the learning rate goes from {rates[0]:.3g} to {rates[1]:.3g}")
    return "; ".join(parts)


def _learning_rates(args: Any, state: ResumeState, steps: int) -> tuple[float, float] | None:
    """The learning rates of the last step and of the next one; None for a schedule that depends on the losses."""
    found = []
    for total, step in ((state.max_steps, state.step - 1), (steps, state.step)):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=args.learning_rate)
        warmup = args.get_warmup_steps(total)
        scheduler = get_scheduler(
            args.lr_scheduler_type, optimizer, warmup, total, scheduler_specific_kwargs=args.lr_scheduler_kwargs
        )
        rule = getattr(scheduler, "lr_lambdas", None)
        if rule is None:
            return None
        found.append(args.learning_rate * rule[0](step))
    return found[0], found[1]
