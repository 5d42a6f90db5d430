"""The comparison of all settings in words and tables: the grid, and how often each arm is better or worse."""

from __future__ import annotations

from collections.abc import Iterator

from balanced_thinking.report.build import Report
from balanced_thinking.report.compare.formatting import MISSING, format_margin, format_points
from balanced_thinking.report.compare.grid import Grid, SummaryRow
from balanced_thinking.report.draw.grid import mark_cell

SUMMARY_HEADER = (
    "settings",
    "better",
    "worse",
    "better, adjusted over all",
    "worse, adjusted over all",
    "non-inferior",
    "undecided",
    "mean points",
    "lowest points",
)


def summary_cells(row: SummaryRow) -> list[str]:
    """The cells of a row, in the order of SUMMARY_HEADER."""
    counts = (row.settings, row.better, row.worse, row.better_overall, row.worse_overall)
    non_inferior = MISSING if row.non_inferior is None else f"{row.non_inferior} of {row.settings}"
    lowest = f"{format_points(row.lowest_points)} ({row.lowest_setting})"
    return [*map(str, counts), non_inferior, str(row.undecided), format_points(row.mean_points), lowest]


def explain_summary(report: Report) -> str:
    """How to read the summary; empty without a grid."""
    if report.grid is None:
        return ""
    margin = ""
    if report.margin is not None:
        margin = (
            f"Non-inferior: the arm is shown to be less than {format_margin(report.margin)} worse (one-sided test at "
            "0.05, not adjusted). "
        )
    return (
        "Better and worse: significant after Holm over the contrasts of one setting. Adjusted over all: after Holm "
        f"over all {len(report.grid.cells)} comparisons of this table together. {margin}"
        "Undecided: neither significant nor non-inferior, so the study is too small to say. "
        "A setting can be worse and non-inferior at once, where a difference is small and well measured."
    )


def grid_tables(grid: Grid) -> Iterator[tuple[list[str], list[list[str]]]]:
    """The grid as tables of (header, rows), one for each band of columns."""
    for band in grid.bands:
        columns = [column.setting for group in band for column in group.columns]
        found = [[grid.cells.get((pair, setting)) for setting in columns] for pair in grid.pairs]
        rows = [
            [grid.row_label(pair), *(MISSING if contrast is None else mark_cell(contrast) for contrast in contrasts)]
            for pair, contrasts in zip(grid.pairs, found, strict=True)
        ]
        yield [f"minus {grid.common_base}" if grid.common_base else "contrast", *columns], rows
