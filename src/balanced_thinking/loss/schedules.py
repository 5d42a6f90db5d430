"""Weight curves over training progress: how the weight moves from thinking to answering.

A curve maps progress u in [0, 1] to a share: 0 is the start weight, 1 is the end weight. To add one, write the
function and give it a line in `CURVES`.

`adaptive` is the cosine with a later start: it begins to move when the think loss has flattened (see
`FlatteningRule`). It still reaches its end point at the last step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from balanced_thinking.config.names import did_you_mean

Curve = Callable[[float], float]
_EXPONENTIAL_RATE = 5.0
_WINDOWS = 20  # of a training, over which `FlatteningRule` compares means

CURVES: dict[str, Curve] = {
    "cosine": lambda u: (1 - math.cos(math.pi * u)) / 2,
    "linear": lambda u: u,
    "step": lambda u: 1.0 if u >= 0.5 else 0.0,
    "constant": lambda u: 0.0,
    "exponential": lambda u: math.expm1(-_EXPONENTIAL_RATE * u) / math.expm1(-_EXPONENTIAL_RATE),
    "adaptive": lambda u: (1 - math.cos(math.pi * u)) / 2,
}
# Schedules that keep all weight on one segment: the think weight.
FIXED_WEIGHTS = {"answer-only": 0.0, "think-only": 1.0}
SCHEDULES = (*CURVES, *FIXED_WEIGHTS)


class SegmentWeights(NamedTuple):
    """The weights of the two segments at one optimizer step."""

    think: float
    answer: float


@dataclass(frozen=True)
class Schedule:
    """The segments' weights over training; without end points of its own the answer's weight is 1 minus the think one.

    `hold_start` and `hold_end` are shares of training, at its start and its end, during which the weights stay
    constant; the curve runs in between. `answer_start` and `answer_end` give the answer a schedule of its own, along
    the same curve and holds. Then no weight has an upper bound. Raises `ValueError` for an unknown name, for weights
    that are out of range or leave nothing to learn, and for holds that leave no time to move.
    """

    name: str = "cosine"
    start: float = 0.9
    end: float = 0.5
    hold_start: float = 0.0
    hold_end: float = 0.0
    answer_start: float | None = None
    answer_end: float | None = None

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise ValueError(
                f"unknown schedule {self.name!r}{did_you_mean(self.name, SCHEDULES)}; known: {', '.join(SCHEDULES)}"
            )
        if self.has_two_weights:
            self._check_two_weights()
        for option, weight in (("think_weight_start", self.start), ("think_weight_end", self.end)):
            if not self.has_two_weights and not 0 <= weight <= 1:
                raise ValueError(
                    f"{option} is {weight}, but a weight must be between 0 and 1 where the answer's is 1 minus it"
                )
        if not (self.hold_start >= 0 and self.hold_end >= 0 and self.hold_start + self.hold_end < 1):
            raise ValueError(
                f"schedule_hold_start {self.hold_start} and schedule_hold_end {self.hold_end} must not be negative and "
                "must sum to less than 1, because the weight moves in the rest of training"
            )

    @property
    def has_two_weights(self) -> bool:
        """Whether the answer's weight has end points of its own."""
        return self.answer_start is not None or self.answer_end is not None

    def _check_two_weights(self) -> None:
        pairs = {
            "think_weight_start": self.start,
            "think_weight_end": self.end,
            "answer_weight_start": self.answer_start,
            "answer_weight_end": self.answer_end,
        }
        for option, weight in pairs.items():
            if weight is None:
                other = next(name for name in pairs if name != option and name.startswith("answer"))
                raise ValueError(f"{other} is set, but {option} is not; set both, or neither")
            if not (weight >= 0 and math.isfinite(weight)):
                raise ValueError(f"{option} is {weight}; expected a finite number that is not negative")
        if self.name in FIXED_WEIGHTS:
            raise ValueError(
                f"schedule {self.name!r} fixes both weights, but answer_weight_start is {self.answer_start}; choose "
                "another schedule, or leave out answer_weight_start and answer_weight_end"
            )
        for end in ("start", "end"):
            if not pairs[f"think_weight_{end}"] and not pairs[f"answer_weight_{end}"]:
                raise ValueError(
                    f"think_weight_{end} and answer_weight_{end} are both 0, so that nothing would be learned there; "
                    "set one of them above 0"
                )

    def think_weight(self, progress: float, moved_at: float | None = None) -> float:
        """The think weight at `progress`: 0 is the first optimizer step, 1 the last one; clamped outside.

        `moved_at` is the progress at which `adaptive` began to move, None before that. Other schedules ignore it.
        """
        return self.weights(progress, moved_at).think

    def weights(self, progress: float, moved_at: float | None = None) -> SegmentWeights:
        """Both weights at `progress`, as `think_weight` explains it. They sum to 1, unless they are independent."""
        if self.name in FIXED_WEIGHTS:
            think = FIXED_WEIGHTS[self.name]
            return SegmentWeights(think, 1.0 - think)
        moved = CURVES[self.name](self._share_of_way(progress, moved_at))
        think = self.start + (self.end - self.start) * moved
        if self.answer_start is None or self.answer_end is None:
            return SegmentWeights(think, 1.0 - think)
        return SegmentWeights(think, self.answer_start + (self.answer_end - self.answer_start) * moved)

    def _share_of_way(self, progress: float, moved_at: float | None) -> float:
        """How much of the time between the holds has passed, from 0 to 1."""
        hold = self.hold_start
        if self.name == "adaptive":
            hold = max(hold, progress if moved_at is None else moved_at)
        moving = 1 - hold - self.hold_end
        return min(1.0, max(0.0, (progress - hold) / moving)) if moving > 0 else float(progress > hold)


# What is used where nothing is given, in `balanced sft` as in a loop of one's own: the reasoning keeps its weight, and
# the answer gains some. Chosen and confirmed in docs/results.md.
TWO_WEIGHTS = Schedule("cosine", start=1.0, end=1.0, answer_start=0.1, answer_end=1.0)


@dataclass(frozen=True)
class FlatteningRule:
    """Decides when the think loss has flattened.

    A window is a twentieth of the training. The loss has flattened when its mean over a window is lower than over the
    window before by less than `tolerance` (a share). From `latest` (a share of the training) on the answer is always
    yes, so that the weight has time left to reach its end point.
    """

    tolerance: float = 0.05
    latest: float = 0.5

    def __post_init__(self) -> None:
        for option, share in (("adaptive_tolerance", self.tolerance), ("adaptive_latest", self.latest)):
            if not 0 < share < 1:
                raise ValueError(f"{option} is {share}; expected a share between 0 and 1")

    def advance_state(
        self, state: dict[str, float], think_nll: float, progress: float, total_steps: int
    ) -> dict[str, float]:
        """The state after one more step, kept with the checkpoint. It has `moved_at` once the loss has flattened."""
        if "moved_at" in state:
            return state
        state = {**state, "steps": state.get("steps", 0) + 1, "sum": state.get("sum", 0.0) + think_nll}
        flat = False
        if state["steps"] >= total_steps / _WINDOWS:
            mean, before = state["sum"] / state["steps"], state.get("before", math.inf)
            flat = mean > (1 - self.tolerance) * before
            state = {"before": mean}
        return {"moved_at": progress} if flat or progress >= self.latest else state
