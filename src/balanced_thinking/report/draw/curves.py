"""Draws training curves. The suffix `_N` counts logged steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from balanced_thinking.report.draw.svg import ARM, DASHES, Drawing, arm_css_class, figure_to_svg, new_canvas
from balanced_thinking.runs.files import finite_number
from balanced_thinking.runs.load import Run

INCHES = (5.4, 2.9)
_CHARACTER, _LINE, _PAD = 6.5, 18, 8  # points: a character of a label, a line of text, the space around
# Points of one curve. A page with many curves draws fewer points of each, so that it stays small.
MAX_POINTS, MIN_POINTS = 300, 40
# The bold line is a mean over this share of the steps.
SMOOTHING = 0.06
# Above this ratio of the largest to the smallest value, the axis is logarithmic.
LOG_RATIO = 50
_LARGEST = 1e100  # the ticks of an axis overflow beyond


@dataclass(frozen=True)
class Panel:
    """One quantity to draw: its key in metrics.jsonl, a title, its unit, and whether its axis may be logarithmic."""

    key: str
    title: str
    unit: str
    may_be_log: bool = False


PANELS = (
    Panel("think_nll", "Loss on the reasoning", "nats per token", True),
    Panel("answer_nll", "Loss on the answer", "nats per token", True),
    Panel("w_think", "Weight on the reasoning", "factor of its mean loss"),
    Panel("w_answer", "Weight on the answer", "factor of its mean loss"),
    Panel("think_accuracy", "Next-token accuracy in the reasoning", "share of tokens"),
    Panel("answer_accuracy", "Next-token accuracy in the answer", "share of tokens"),
    Panel("eval_think_nll", "Held-out loss on the reasoning", "nats per token", True),
    Panel("eval_answer_nll", "Held-out loss on the answer", "nats per token", True),
    Panel("reward", "Reward", "mean per completion"),
    Panel("rewards/accuracy/mean", "Reward for the right answer", "mean per completion"),
    Panel("completions/mean_length", "Length of the completions", "tokens"),
    Panel("think_tokens", "Length of the reasoning", "tokens"),
    Panel("kl", "Distance from the reference model", "KL divergence, nats per token", True),
    Panel("grad_norm", "Gradient norm", "before clipping", True),
)


@dataclass(frozen=True)
class Curve:
    """One run's values of one quantity over steps. `skipped` counts values that are not finite."""

    arm: int
    steps: np.ndarray
    values: np.ndarray
    skipped: int


def draw_curves(
    runs: Sequence[Run], arms: Sequence[str], *, prefix: str = "", points: int = MAX_POINTS
) -> list[Drawing]:
    """One drawing for each quantity of PANELS that a run logged. `arms` fixes the colours, `prefix` the ids."""
    drawings = []
    runs = sorted(runs, key=lambda run: arms.index(run.arm))
    for panel in PANELS:
        curves = [curve for run in runs if (curve := _read_curve(run, panel.key, arms.index(run.arm))) is not None]
        if curves:
            drawings.append(_draw_panel(panel, curves, arms, prefix, points))
    return drawings


def _read_curve(run: Run, key: str, arm: int) -> Curve | None:
    logged = [(row.step, finite_number(row.values[key])) for row in run.metrics if key in row.values]
    finite = [(step, value) for step, value in logged if value is not None and abs(value) < _LARGEST]
    if not finite:
        return None
    steps_N, values_N = np.array(finite).T
    return Curve(arm, steps_N, values_N, len(logged) - len(finite))


def _draw_panel(panel: Panel, curves: Sequence[Curve], arms: Sequence[str], prefix: str, points: int) -> Drawing:
    alternative = _describe_panel(panel, curves, arms)
    with new_canvas(*INCHES, arrange=False) as (figure, axes):
        log = panel.may_be_log and _spans_decades(curves)
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, position: f"{value:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        for curve in curves:
            _plot_curve(axes, curve, points)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel("log scale" if log else "")
        axes.margins(x=0.01)
        _make_room_for_labels(figure, axes)
        svg = figure_to_svg(figure, f"{prefix}{panel.key}", alternative)
    return Drawing(panel.title, panel.unit, svg, alternative)


def _make_room_for_labels(figure: Figure, axes: Axes) -> None:
    """Margins for the labels of the ticks and of the axes, by the number of their characters."""
    labels = axes.yaxis.get_major_formatter().format_ticks(list(axes.get_yticks()))
    left = _PAD + _CHARACTER * max(map(len, labels)) + (_LINE if axes.get_ylabel() else 0)
    wide, high = (72 * inches for inches in INCHES)
    right = _PAD + _CHARACTER / 2 * len(f"{axes.dataLim.x1:.0f}")  # a half of the last step's label
    figure.subplots_adjust(left=left / wide, right=1 - right / wide, bottom=2.2 * _LINE / high, top=1 - _LINE / high)


def _plot_curve(axes: Axes, curve: Curve, points: int) -> None:
    """The raw values as a thin line, and over them their running mean as a bold one."""
    steps_N, values_N = average_to_length(curve.steps, points), average_to_length(curve.values, points)
    dashes = DASHES[curve.arm % len(DASHES)]
    # The baseline is wider, so that it is visible under a dashed line.
    width = 2.6 if curve.arm == 0 else 1.6
    gid = arm_css_class(curve.arm)
    if len(values_N) < 12:
        axes.plot(steps_N, values_N, color=ARM, linewidth=width, linestyle=dashes, gid=gid)
        return
    axes.plot(steps_N, values_N, color=ARM, linewidth=0.7, alpha=0.35, gid=gid)
    axes.plot(steps_N, running_mean(values_N), color=ARM, linewidth=width, linestyle=dashes, gid=gid)


def running_mean(values_N: np.ndarray) -> np.ndarray:
    """The centred running mean over a share SMOOTHING of the points, over fewer points at the ends."""
    half = max(1, round(len(values_N) * SMOOTHING / 2))
    sums = np.concatenate([[0.0], np.cumsum(values_N)])
    index_N = np.arange(len(values_N))
    low_N, high_N = np.maximum(index_N - half, 0), np.minimum(index_N + half + 1, len(values_N))
    return (sums[high_N] - sums[low_N]) / (high_N - low_N)


def average_to_length(values_N: np.ndarray, points: int) -> np.ndarray:
    """At most `points` values: the means of consecutive parts of equal length."""
    if len(values_N) <= points:
        return values_N
    return np.array([part.mean() for part in np.array_split(values_N, points)])


def _spans_decades(curves: Iterable[Curve]) -> bool:
    values = np.concatenate([curve.values for curve in curves])
    return bool(values.min() > 0 and values.max() / values.min() > LOG_RATIO)


def _describe_panel(panel: Panel, curves: Sequence[Curve], arms: Sequence[str]) -> str:
    """The drawing in words, for screen readers: where every arm starts and ends."""
    by_arm: dict[int, list[Curve]] = defaultdict(list)
    for curve in curves:
        by_arm[curve.arm].append(curve)
    ends = "; ".join(f"{arms[arm]} {_describe_ends(group)}" for arm, group in sorted(by_arm.items()))
    skipped = sum(curve.skipped for curve in curves)
    warning = f" {skipped} values were not finite and are left out." if skipped else ""
    return f"{panel.title}, {panel.unit}, over training steps: {ends}.{warning}"


def _describe_ends(curves: Sequence[Curve]) -> str:
    first = float(np.mean([running_mean(curve.values)[0] for curve in curves]))
    last = float(np.mean([running_mean(curve.values)[-1] for curve in curves]))
    step = max(float(curve.steps[-1]) for curve in curves)
    seeds = f", mean of {len(curves)} seeds" if len(curves) > 1 else ""
    return f"from {first:.3g} to {last:.3g} at step {step:.0f}{seeds}"
