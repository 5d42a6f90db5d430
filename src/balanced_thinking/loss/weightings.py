"""Weightings: how the tokens of an optimizer step are weighed, by name. No torch.

To add one, write a function and give it a line in `WEIGHTINGS`, and in `_EVALUATION_MEANS` if it is a plain mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from balanced_thinking.loss.schedules import Schedule
from balanced_thinking.loss.variants import PLAIN_MEANS


class StepWeights(NamedTuple):
    """The segments' weights at one optimizer step, and what the means run over (see `weights.token_weights`).

    With means of plain SFT (`PLAIN_MEANS`) the weights play no part.
    """

    think: float
    answer: float
    means: str = "example"

    @property
    def is_plain(self) -> bool:
        return self.means in PLAIN_MEANS


class Progress(NamedTuple):
    """Where a training is: 0 is its first optimizer step, 1 its last. `moved_at` is as `Schedule` explains it."""

    share: float
    moved_at: float | None = None


# (schedule, what `normalize` names, progress) -> the step's weights
Weighting = Callable[[Schedule, str, Progress], StepWeights]


def _weigh_scale(schedule: Schedule, means: str, progress: Progress) -> StepWeights:
    """SCALe: each segment's mean, with the weights of the schedule."""
    return StepWeights(*schedule.weights(*progress), means)


def _weigh_uniform(schedule: Schedule, means: str, progress: Progress) -> StepWeights:
    """Plain SFT as TRL has it: one mean over all supervised tokens of the global batch."""
    return StepWeights(1.0, 1.0, "token")


def _weigh_example_mean(schedule: Schedule, means: str, progress: Progress) -> StepWeights:
    """Plain SFT in which a long example counts no more than a short one."""
    return StepWeights(1.0, 1.0, "example-mean")


def _weigh_sftkey(schedule: Schedule, means: str, progress: Progress) -> StepWeights:
    """SFTKey (arXiv:2512.21017): plain SFT, then the answer alone. Of the schedule it has the holds."""
    switch = replace(schedule, name="step", start=1.0, end=0.0, answer_start=None, answer_end=None)
    if switch.weights(progress.share).think:
        return _weigh_uniform(schedule, means, progress)
    return StepWeights(0.0, 1.0, "batch" if means == "token" else means)  # a mean over the answer's tokens alone


WEIGHTINGS: dict[str, Weighting] = {
    "scale": _weigh_scale,
    "uniform": _weigh_uniform,
    "example-mean": _weigh_example_mean,
    "sftkey": _weigh_sftkey,
}


# What the evaluation of a weighting averages over; without an entry what `normalize` says.
_EVALUATION_MEANS = {"uniform": "token", "sftkey": "token", "example-mean": "example-mean"}


def evaluation_weights(weighting: str, means: str) -> StepWeights:
    """The weights of an evaluation. They never follow the schedule, so that its loss can be compared over time."""
    means = _EVALUATION_MEANS.get(weighting, means)
    return StepWeights(0.5, 0.5, means if means in PLAIN_MEANS else "example")
