"""Draws the grid of arms and settings: each cell is coloured by its difference and has its interval written in it.

Coordinates are inches, from the top left.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from balanced_thinking.report.compare.contrasts import Contrast
from balanced_thinking.report.compare.formatting import format_interval, format_margin, format_points
from balanced_thinking.report.compare.grid import MOST_COLUMNS, Grid, Group, is_non_inferior
from balanced_thinking.report.draw.svg import ARM, INK, Drawing, figure_to_svg, new_canvas, shorten_label

WIDTH, LABELS_WIDTH, ROW_HEIGHT, HEAD_HEIGHT, GAP = 10.6, 1.8, 0.44, 0.36, 0.14
MOST_CELLS = 400  # of a drawing; the tables have more
# Opacity of a cell's colour: text on it keeps a contrast of 4.5 to 1, in light and in dark.
FAINTEST, STRONGEST = 0.06, 0.5
LEAST_SCALE, MOST_SCALE = 3.0, 15.0  # points at which the colour is strongest
SIGNIFICANT, NON_INFERIOR = "*", "✓"


def draw_grid(grid: Grid, margin: float | None, key: str) -> Drawing | None:
    """Differences in points with their 95 % intervals; None where there are more than MOST_CELLS."""
    if len(grid.pairs) * len(grid.columns) > MOST_CELLS:
        return None
    alternative = describe_grid(grid)
    scale = min(MOST_SCALE, max(LEAST_SCALE, *(abs(contrast.points) for contrast in grid.cells.values())))
    minus = f"each arm minus {shorten_label(grid.common_base) if grid.common_base else 'its baseline'}"
    rows = len(grid.pairs)
    height = sum(_head_height(band) + rows * ROW_HEIGHT + GAP for band in grid.bands) + 0.5
    with new_canvas(WIDTH, height) as (figure, axes):
        figure.set_layout_engine("none")
        axes.set_position((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set(xlim=(0, WIDTH), ylim=(height, 0))
        top = 0.0
        for band in grid.bands:
            top = _draw_band(axes, grid, band, top, scale) + GAP
        for line, text in enumerate(_legend_lines(minus, margin, scale)):
            _write(axes, 0.02, top + 0.1 + 0.19 * line, text, "grid-note", align="left")
        svg = figure_to_svg(figure, key, alternative)
    return Drawing("Differences in all settings", f"points of accuracy, {minus}", svg, alternative)


def _head_height(band: Sequence[Group]) -> float:
    return HEAD_HEIGHT + (0.24 if any(group.title for group in band) else 0)


def _draw_band(axes: Axes, grid: Grid, band: Sequence[Group], top: float, scale: float) -> float:
    """Draws one band of columns, and returns its lower end."""
    count = sum(len(group.columns) for group in band)
    gaps = 0.1 * (len(band) - 1)
    width = (WIDTH - LABELS_WIDTH - gaps) / max(count, MOST_COLUMNS // 2 + 1)
    first_row, left = top + _head_height(band), LABELS_WIDTH
    for place, pair in enumerate(grid.pairs):
        middle = first_row + (place + 0.5) * ROW_HEIGHT
        _write(axes, LABELS_WIDTH - 0.1, middle, shorten_label(grid.row_label(pair), 24), "grid-label", align="right")
    for group in band:
        if group.title:
            centre = left + len(group.columns) * width / 2
            _write(axes, centre, top + 0.12, shorten_label(group.title), "grid-title")
        for column in group.columns:
            for line, text in enumerate(_two_lines(column.label, width)):
                _write(axes, left + width / 2, first_row - 0.25 + 0.15 * line, text, "grid-interval")
            for place, pair in enumerate(grid.pairs):
                contrast = grid.cells.get((pair, column.setting))
                _draw_cell(axes, contrast, (left, first_row + place * ROW_HEIGHT), width, scale)
            left += width
        left += 0.1
    return first_row + len(grid.pairs) * ROW_HEIGHT


def _two_lines(label: str, width: float) -> list[str]:
    """A setting's name on at most two lines, the last one at the bottom."""
    characters = int(13.5 * width)
    lines = textwrap.wrap(shorten_label(label), characters) or [""]
    if len(lines) > 2:
        lines = [lines[0], shorten_label(" ".join(lines[1:]), characters)]
    return ["", *lines][-2:]


def _draw_cell(axes: Axes, contrast: Contrast | None, corner: tuple[float, float], width: float, scale: float) -> None:
    left, top = corner
    box: dict[str, Any] = {"xy": (left + 0.015, top + 0.015), "width": width - 0.03, "height": ROW_HEIGHT - 0.03}
    centre = left + width / 2
    if contrast is None:
        _write(axes, centre, top + ROW_HEIGHT / 2, "–", "grid-interval")
        return
    strength = FAINTEST + (STRONGEST - FAINTEST) * min(1.0, abs(contrast.points) / scale)
    kind = "grid-better" if contrast.points > 0 else "grid-worse"
    axes.add_patch(Rectangle(**box, facecolor=ARM, edgecolor="none", alpha=strength, gid=kind))
    if contrast.is_significant:
        axes.add_patch(Rectangle(**box, facecolor="none", edgecolor=INK, linewidth=1.2))
    marks = [mark for mark, _ in _marks(contrast)]
    _write(axes, centre, top + 0.15, " ".join([format_points(contrast.points), *marks]), "grid-points")
    _write(axes, centre, top + 0.32, format_interval(contrast.interval), "grid-interval")


def _marks(contrast: Contrast) -> list[tuple[str, str]]:
    """The signs of a cell, each with its meaning."""
    found = [(SIGNIFICANT, "significant")] if contrast.is_significant else []
    return [*found, (NON_INFERIOR, "non-inferior")] if is_non_inferior(contrast) else found


def mark_cell(contrast: Contrast) -> str:
    """`+2.1 * ✓ (−0.4 to +4.6)`: the cell as text, for a table."""
    marks = [mark for mark, _ in _marks(contrast)]
    return " ".join([format_points(contrast.points), *marks, f"({format_interval(contrast.interval)})"])


def explain_marks(margin: float | None) -> str:
    """What the signs mean."""
    shown = f"{SIGNIFICANT} significant after Holm over the setting's contrasts"
    return shown if margin is None else f"{shown}; {NON_INFERIOR} non-inferior within {format_margin(margin)}"


def _legend_lines(minus: str, margin: float | None, scale: float) -> tuple[str, str]:
    colours = f"Blue: better, orange: worse, strongest from {scale:.0f} points on"
    return f"Points of accuracy, {minus}, and the 95 % interval. {colours}.", f"{explain_marks(margin)}."


def _write(axes: Axes, x: float, y: float, text: str, kind: str, *, align: str = "center") -> None:
    axes.text(x, y, text, gid=kind, color=INK, ha=align, va="center", parse_math=False, fontsize=9)


def describe_grid(grid: Grid) -> str:
    """The grid in words, for screen readers."""
    rows = []
    for pair in grid.pairs:
        cells = []
        for contrast, column in ((grid.cells.get((pair, column.setting)), column) for column in grid.columns):
            if contrast is not None:
                words = "".join(f", {word}" for _, word in _marks(contrast))
                cells.append(
                    f"{column.setting} {format_points(contrast.points)} ({format_interval(contrast.interval)}){words}"
                )
        rows.append(f"{pair.arm} minus {pair.base}: {'; '.join(cells)}")
    return f"Differences in points of accuracy with 95 % intervals. {'. '.join(rows)}."
