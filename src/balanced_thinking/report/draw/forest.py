"""Draws a forest plot: one line with an interval for each paired difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from balanced_thinking.report.compare.contrasts import Contrast
from balanced_thinking.report.compare.formatting import format_points
from balanced_thinking.report.draw.svg import (
    ARM,
    INCHES_WIDE,
    INK,
    Drawing,
    arm_css_class,
    draw_dot,
    figure_to_svg,
    new_canvas,
    shorten_label,
)

ROW_INCHES = 0.27
# After a row's label, so that it is indented under the title of its group.
INDENT = "   "


@dataclass(frozen=True)
class ForestRow:
    """One line. `arm` fixes its colour; `title` is set on the first line of a group."""

    label: str
    contrast: Contrast
    arm: int
    title: str | None = None


def forest_rows(contrasts: Mapping[str, Sequence[Contrast]], arms: Sequence[str]) -> list[ForestRow]:
    """One row for each contrast, grouped by pair of arms. The mapping's keys (splits or settings) are the labels."""
    pairs = dict.fromkeys((c.arm, c.base) for group in contrasts.values() for c in group)
    rows = []
    for arm, base in pairs:
        same = [(label, c) for label, group in contrasts.items() for c in group if (c.arm, c.base) == (arm, base)]
        titles = [f"{shorten_label(arm)} minus {shorten_label(base)}", *[None] * len(same)]
        rows += [ForestRow(label, c, arms.index(arm), title) for (label, c), title in zip(same, titles, strict=False)]
    return rows


def draw_forest(rows: Sequence[ForestRow], margin: float | None, key: str) -> Drawing | None:
    """Differences in points with their 95 % intervals. The band is the margin. None without rows."""
    if not rows:
        return None
    lines = len(rows) + sum(row.title is not None for row in rows)
    alternative = _describe_forest(rows)
    with new_canvas(INCHES_WIDE, 0.75 + ROW_INCHES * lines) as (figure, axes):
        ticks = _draw_rows(axes, rows)
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
        svg = figure_to_svg(figure, key, alternative)
    return Drawing("Paired differences", "points of accuracy, 95 % intervals", svg, alternative)


def _draw_rows(axes: Axes, rows: Sequence[ForestRow]) -> dict[int, str]:
    """Draws every row. Returns the label at each height."""
    ticks, y = {}, 0
    for row in rows:
        if row.title is not None:
            ticks[y], y = row.title, y + 1
        ticks[y] = shorten_label(row.label) + INDENT
        low, high = row.contrast.interval
        axes.plot([low, high], [y, y], color=ARM, linewidth=1.8, gid=arm_css_class(row.arm))
        draw_dot(axes, row.contrast.points, y, 8, row.arm)
        y += 1
    return ticks


def _describe_forest(rows: Sequence[ForestRow]) -> str:
    """The drawing in words, for screen readers."""
    differences = "; ".join(
        f"{row.contrast.arm} minus {row.contrast.base}, {row.label}: {format_points(row.contrast.points)} "
        f"({format_points(row.contrast.interval[0])} to {format_points(row.contrast.interval[1])})"
        for row in rows
    )
    return f"Paired differences in points of accuracy with 95 % intervals: {differences}."
