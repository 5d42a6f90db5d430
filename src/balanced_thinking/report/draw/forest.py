"""Two drawings of a setting's results: a forest of paired differences, and accuracy against training time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from balanced_thinking.report.compare.contrasts import Contrast
from balanced_thinking.report.compare.cost import chain_seconds
from balanced_thinking.report.compare.formatting import points, seconds, span
from balanced_thinking.report.draw.svg import ARM, INK, Drawing, arm_class, canvas, dot, name_of, render
from balanced_thinking.runs.load import Run, mean_of_known
from balanced_thinking.statistics.intervals import wilson_interval

INCHES_WIDE = 8.4
ROW_INCHES = 0.27
# More arms than this would write their names over each other; the legend names them.
NAMED_ARMS = 8
# After a row's label, so that it stands back from the title of its group.
INDENT = "   "


@dataclass(frozen=True)
class ForestRow:
    """One line: what it is, the contrast, its arm's colour, and whether it opens a group."""

    label: str
    contrast: Contrast
    arm: int
    title: str | None = None


def forest_rows(contrasts: Mapping[str, Sequence[Contrast]], arms: Sequence[str]) -> list[ForestRow]:
    """Grouped by pair of arms, one line for each of the mapping's labels (splits or settings) that compares them."""
    pairs = dict.fromkeys((c.arm, c.base) for group in contrasts.values() for c in group)
    rows = []
    for arm, base in pairs:
        same = [(label, c) for label, group in contrasts.items() for c in group if (c.arm, c.base) == (arm, base)]
        titles = [f"{name_of(arm)} minus {name_of(base)}", *[None] * len(same)]
        rows += [ForestRow(label, c, arms.index(arm), title) for (label, c), title in zip(same, titles, strict=False)]
    return rows


def draw_forest(rows: Sequence[ForestRow], margin: float | None, key: str) -> Drawing | None:
    """Differences in points with their 95 % intervals; the band is the margin. None without a row."""
    if not rows:
        return None
    lines = len(rows) + sum(row.title is not None for row in rows)
    alternative = _describe_forest(rows)
    with canvas(INCHES_WIDE, 0.75 + ROW_INCHES * lines) as (figure, axes):
        ticks = _place(axes, rows)
        axes.axvline(0, color=INK, linewidth=1)
        if margin:
            axes.axvspan(-margin, margin, color=INK, alpha=0.07, linewidth=0)
        axes.set_yticks(list(ticks), list(ticks.values()), parse_math=False)
        for label in axes.get_yticklabels():
            label.set_fontweight("normal" if label.get_text().endswith(INDENT) else "bold")
        axes.set_ylim(lines - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("points of accuracy: the first arm is worse  |  better")
        svg = render(figure, key, alternative)
    return Drawing("Paired differences", "points of accuracy, 95 % intervals", svg, alternative)


def _place(axes: Axes, rows: Sequence[ForestRow]) -> dict[int, str]:
    """Draw every row; returns the label at each height."""
    ticks, y = {}, 0
    for row in rows:
        if row.title is not None:
            ticks[y], y = row.title, y + 1
        ticks[y] = name_of(row.label) + INDENT
        low, high = row.contrast.interval
        axes.plot([low, high], [y, y], color=ARM, linewidth=1.8, gid=arm_class(row.arm))
        dot(axes, row.contrast.points, y, 8, row.arm)
        y += 1
    return ticks


def _describe_forest(rows: Sequence[ForestRow]) -> str:
    told = "; ".join(
        f"{row.contrast.arm} minus {row.contrast.base}, {row.label}: {points(row.contrast.points)} "
        f"({points(row.contrast.interval[0])} to {points(row.contrast.interval[1])})"
        for row in rows
    )
    return f"Paired differences in points of accuracy with 95 % intervals: {told}."


@dataclass(frozen=True)
class Place:
    """Where an arm lies: (training seconds, accuracy) of every seed; accuracies are shares."""

    arm: str
    index: int
    seeds: tuple[tuple[float, float], ...]
    interval: tuple[float, float]

    @property
    def middle(self) -> tuple[float, float]:
        times, shares = zip(*self.seeds, strict=True)
        return sum(times) / len(times), sum(shares) / len(shares)


def draw_times(groups: Mapping[str, Sequence[Run]], arms: Sequence[str], split: str, key: str) -> Drawing | None:
    """Accuracy on `split` against the training time of the whole chain. None where no run has both."""
    places = [place for arm in groups if (place := _find_place(groups, arm, arms, split)) is not None]
    if not places:
        return None
    alternative = _describe_times(places, split)
    slowest = max(seed[0] for place in places for seed in place.seeds)
    unit, scale = ("minutes", 60) if slowest < 3 * 3600 else ("hours", 3600)
    with canvas(INCHES_WIDE, 3.6) as (figure, axes):
        for place in places:
            _draw_place(axes, place, scale, named=len(places) <= NAMED_ARMS)
        axes.set_xlim(0, 1.18 * slowest / scale)
        axes.set_xlabel(f"training time, {unit}")
        axes.set_ylabel("accuracy, %")
        svg = render(figure, key, alternative)
    return Drawing("Accuracy against training time", f"{split}; one point a seed, means larger", svg, alternative)


def _find_place(groups: Mapping[str, Sequence[Run]], arm: str, arms: Sequence[str], split: str) -> Place | None:
    everything = [run for runs in groups.values() for run in runs]
    found = [
        (seconds, run.evaluations[split].total)
        for run in groups[arm]
        if split in run.evaluations
        and run.evaluations[split].total.n
        and (seconds := chain_seconds(run, everything)) is not None
    ]
    if not found:
        return None
    items = round(mean_of_known(total.n for _, total in found) or 0)
    right = round(mean_of_known(total.correct for _, total in found) or 0)
    seeds = tuple((seconds, total.correct / total.n) for seconds, total in found)
    return Place(arm, arms.index(arm), seeds, wilson_interval(right, items))


def _draw_place(axes: Axes, place: Place, scale: float, *, named: bool) -> None:
    for time, share in place.seeds:
        dot(axes, time / scale, 100 * share, 5, place.index, alpha=0.45)
    time, share = place.middle
    low, high = place.interval
    axes.plot([time / scale] * 2, [100 * low, 100 * high], color=ARM, linewidth=1, gid=arm_class(place.index))
    dot(axes, time / scale, 100 * share, 11, place.index)
    if named:
        where: dict[str, Any] = {"xy": (time / scale, 100 * share), "xytext": (9, 4), "textcoords": "offset points"}
        axes.annotate(name_of(place.arm), fontsize=10, parse_math=False, **where)


def _describe_times(places: Sequence[Place], split: str) -> str:
    told = "; ".join(
        f"{place.arm} {100 * place.middle[1]:.1f} % ({span(place.interval)}) after {seconds(place.middle[0])}"
        for place in places
    )
    return f"Accuracy on {split} against training time: {told}."
