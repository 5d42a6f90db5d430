"""Draws accuracy against training time: one dot per seed, and larger the mean of each arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from balanced_thinking.report.compare.cost import chain_train_seconds
from balanced_thinking.report.compare.formatting import format_duration, format_range
from balanced_thinking.report.draw.svg import (
    ARM,
    INCHES_WIDE,
    Drawing,
    arm_css_class,
    draw_dot,
    figure_to_svg,
    new_canvas,
    shorten_label,
)
from balanced_thinking.runs.load import Run, mean_of_known
from balanced_thinking.statistics.intervals import Interval, wilson_interval

# The names of more arms than this would overlap; the legend names them.
NAMED_ARMS = 8


class TimedAccuracy(NamedTuple):
    """Training seconds and accuracy (a share) of one seed, or their means."""

    seconds: float
    accuracy: float


@dataclass(frozen=True)
class ArmDots:
    """The dots of one arm. `index` fixes its colour; `interval` is the Wilson interval of its accuracy."""

    arm: str
    index: int
    seeds: tuple[TimedAccuracy, ...]
    interval: Interval

    @property
    def mean_point(self) -> TimedAccuracy:
        n = len(self.seeds)
        return TimedAccuracy(
            sum(seed.seconds for seed in self.seeds) / n, sum(seed.accuracy for seed in self.seeds) / n
        )


def draw_times(groups: Mapping[str, Sequence[Run]], arms: Sequence[str], split: str, key: str) -> Drawing | None:
    """Accuracy on `split` against the training time of the complete chain. None where no run has both."""
    found = [times for arm in groups if (times := _arm_dots(groups, arm, arms, split)) is not None]
    if not found:
        return None
    alternative = _describe_dots(found, split)
    slowest = max(seed.seconds for times in found for seed in times.seeds)
    unit, scale = ("minutes", 60) if slowest < 3 * 3600 else ("hours", 3600)
    with new_canvas(INCHES_WIDE, 3.6) as (figure, axes):
        for times in found:
            _draw_arm_dots(axes, times, scale, named=len(found) <= NAMED_ARMS)
        axes.set_xlim(0, 1.18 * slowest / scale)
        axes.set_xlabel(f"training time, {unit}")
        axes.set_ylabel("accuracy, %")
        svg = figure_to_svg(figure, key, alternative)
    return Drawing("Accuracy against training time", f"{split}; one dot per seed, means are larger", svg, alternative)


def _arm_dots(groups: Mapping[str, Sequence[Run]], arm: str, arms: Sequence[str], split: str) -> ArmDots | None:
    everything = [run for runs in groups.values() for run in runs]
    found = [
        (seconds, run.evaluations[split].total)
        for run in groups[arm]
        if split in run.evaluations
        and run.evaluations[split].total.n
        and (seconds := chain_train_seconds(run, everything)) is not None
    ]
    if not found:
        return None
    items = round(mean_of_known(total.n for _, total in found) or 0)
    right = round(mean_of_known(total.correct for _, total in found) or 0)
    seeds = tuple(TimedAccuracy(seconds, total.correct / total.n) for seconds, total in found)
    return ArmDots(arm, arms.index(arm), seeds, wilson_interval(right, items))


def _draw_arm_dots(axes: Axes, times: ArmDots, scale: float, *, named: bool) -> None:
    for seconds, share in times.seeds:
        draw_dot(axes, seconds / scale, 100 * share, 5, times.index, alpha=0.45)
    x, y = times.mean_point.seconds / scale, 100 * times.mean_point.accuracy
    low, high = times.interval
    axes.plot([x, x], [100 * low, 100 * high], color=ARM, linewidth=1, gid=arm_css_class(times.index))
    draw_dot(axes, x, y, 11, times.index)
    if named:
        where: dict[str, Any] = {"xy": (x, y), "xytext": (9, 4), "textcoords": "offset points"}
        axes.annotate(shorten_label(times.arm), fontsize=10, parse_math=False, **where)


def _describe_dots(found: Sequence[ArmDots], split: str) -> str:
    """The drawing in words, for screen readers."""
    arms = "; ".join(
        f"{times.arm} {100 * times.mean_point.accuracy:.1f} % ({format_range(times.interval)}) "
        f"after {format_duration(times.mean_point.seconds)}"
        for times in found
    )
    return f"Accuracy on {split} against training time: {arms}."
