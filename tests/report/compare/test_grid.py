"""All settings of a study side by side: groups of columns, what a cell says, and how often an arm wins or loses."""

from __future__ import annotations

import csv
import html
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from statsmodels.stats.multitest import multipletests

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.report import write_report
from balanced_thinking.report.build import Report
from balanced_thinking.report.compare.contrasts import ALPHA, Contrast, SeedContrast
from balanced_thinking.report.compare.grid import Grid, group_settings, make_grid, summarize_grid
from balanced_thinking.report.draw.grid import draw_grid, mark_cell
from balanced_thinking.report.draw.svg import SVG
from balanced_thinking.report.write.files import render_figure
from balanced_thinking.report.write.grid_words import grid_tables
from balanced_thinking.report.write.markdown import render_markdown
from balanced_thinking.report.write.page import render_page
from balanced_thinking.report.write.spreadsheet import render_settings_csv
from balanced_thinking.statistics.intervals import mcnemar_exact, tost_paired
from tests.report.synthetic import write_run


def made_contrast(only: int, other: int, *, arm: str = "scale", p_holm: float | None = None) -> Contrast:
    """One seed of 1,000 items; `only` and `other` count the items that one arm alone got right."""
    seed = SeedContrast(0, 600, only, other, 400 - only - other)
    tost = tost_paired(*seed.counts, margin=0.015)
    p = mcnemar_exact(only, other)
    return Contrast(arm, "sft", "test", (seed,), seed.interval, p, tost, None, p if p_holm is None else p_holm)


BETTER, WORSE, EQUAL, OPEN = (60, 20), (20, 60), (5, 5), (55, 60)
SLIGHTLY_WORSE = (0, 6)  # significant, and within the margin


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["base-plain", "base-varied", "reasoner-plain", "reasoner-varied"], [("base", 2), ("reasoner", 2)]),
        (
            ["world-base-a", "world-base-b", "world-reasoner-a", "world-reasoner-b"],
            [("world-base", 2)] * 1 + [("world-reasoner", 2)],
        ),
        (["base-a", "reasoner-a", "base-b", "reasoner-b"], [("base", 2), ("reasoner", 2)]),  # in any order
        (["ratio-10", "ratio-40"], [("", 2)]),  # one group only
        (["qwen-10", "qwen-40", "gemma-10"], [("", 3)]),  # a group of one is none
        (["base", "base-varied", "reasoner", "reasoner-varied"], [("", 4)]),  # nothing left of a name
        (["easy", "hard"], [("", 2)]),
    ],
)
def test_settings_are_grouped_by_how_their_names_begin(names: list[str], groups: list[tuple[str, int]]) -> None:
    found = group_settings(names)
    assert [(group.title, len(group.columns)) for group in found] == groups
    assert sorted(column.setting for group in found for column in group.columns) == sorted(names)


def test_a_summary_counts_settings_by_what_is_shown() -> None:
    settings = {"a": BETTER, "b": WORSE, "c": EQUAL, "d": OPEN, "e": SLIGHTLY_WORSE}
    grid = make_grid({name: [made_contrast(*counts)] for name, counts in settings.items()})
    assert grid is not None
    (row,) = summarize_grid(grid)
    assert (row.settings, row.better, row.worse, row.undecided) == (5, 1, 2, 1)
    assert row.non_inferior == 3  # a, c, and e, which is also worse
    assert (row.lowest_points, row.lowest_setting) == (-4.0, "b")
    assert row.mean_points == pytest.approx((4 - 4 + 0 - 0.5 - 0.6) / 5)


def test_adjusted_over_all_is_holm_over_every_pair_and_setting() -> None:
    counts = [(30, 12), (32, 12), (25, 12), (10, 10)]
    grid = make_grid(
        {f"s{i}": [made_contrast(*one), made_contrast(*one[::-1], arm="adaptive")] for i, one in enumerate(counts)}
    )
    assert grid is not None
    p = [contrast.p for contrast in grid.cells.values()]
    expected = sum(multipletests(p, method="holm")[1] < ALPHA) // 2
    rows = summarize_grid(grid)
    assert [(row.arm, row.better_overall, row.worse_overall) for row in rows] == [
        ("scale", expected, 0),
        ("adaptive", 0, expected),
    ]
    assert 0 < expected < rows[0].better == 3


def test_without_a_margin_nothing_is_non_inferior() -> None:
    grid = make_grid({"a": [replace(made_contrast(*EQUAL), tost=None)]})
    assert grid is not None
    (row,) = summarize_grid(grid)
    assert (row.non_inferior, row.undecided) == (None, 1)
    assert make_grid({"a": [], "b": []}) is None


def wide_grid(columns: int) -> Grid:
    grid = make_grid({f"s{i}": [made_contrast(*BETTER)] for i in range(columns)})
    assert grid is not None
    return grid


def test_many_settings_continue_below_and_too_many_are_left_to_the_tables() -> None:
    grid = wide_grid(11)
    assert [sum(len(group.columns) for group in band) for band in grid.bands] == [8, 3]
    assert [len(header) - 1 for header, _ in grid_tables(grid)] == [8, 3]
    drawing = draw_grid(grid, 1.5, "grid")
    assert drawing is not None
    assert drawing.svg.count("grid-better") == 11
    assert draw_grid(wide_grid(401), None, "grid") is None


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        (BETTER, "+4.0 * ✓ (+2.3 to +5.8)"),
        (WORSE, "−4.0 * (−5.8 to −2.3)"),
        (EQUAL, "+0.0 ✓ (−0.7 to +0.7)"),
        (OPEN, "−0.5 (−2.6 to +1.6)"),
    ],
)
def test_a_cell_says_points_interval_and_what_is_shown(counts: tuple[int, int], text: str) -> None:
    contrast = made_contrast(*counts)
    assert mark_cell(contrast) == text
    grid = make_grid({"one": [contrast], "two": [contrast]})
    assert grid is not None
    drawing = draw_grid(grid, 1.5, "grid")
    assert drawing is not None
    points, interval = text.rstrip(")").split(" (")
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", drawing.svg)
    assert texts.count(points) == texts.count(interval) == 2
    assert f"one {points.split()[0]} ({interval})" in drawing.alternative
    assert ("significant" in drawing.alternative) is contrast.is_significant


def test_the_colour_is_stronger_for_a_larger_difference() -> None:
    grid = make_grid({"a": [made_contrast(*OPEN)], "b": [made_contrast(*WORSE)], "c": [made_contrast(*BETTER)]})
    assert grid is not None
    drawing = draw_grid(grid, None, "grid")
    assert drawing is not None
    found = re.findall(r'<g class="grid-(\w+)"[^>]*>\s*<path[^>]*?opacity="([\d.]+)"', drawing.svg)
    assert [kind for kind, _ in found] == ["worse", "worse", "better"]
    faint, strong, other = (float(opacity) for _, opacity in found)
    assert 0 < faint < strong == other == 0.5
    assert "style=" not in drawing.svg


def test_page_markdown_csv_and_figure_have_the_same_grid(report: Report) -> None:
    page, markdown, drawn = html.unescape(render_page(report)), render_markdown(report), render_figure(report)
    assert report.grid is not None
    for contrast in report.grid.cells.values():
        points, _, interval = mark_cell(contrast).partition(" (")
        assert mark_cell(contrast).replace("*", "\\*") in markdown
        for text in (drawn, page):
            assert f">{points}<" in text
            assert f">{interval.rstrip(')')}<" in text
    lines = list(csv.DictReader((render_settings_csv(report) or "").splitlines()))
    assert [(line["arm"], line["base"], int(line["undecided"])) for line in lines] == [
        (row.arm, row.base, row.undecided) for row in summarize_grid(report.grid)
    ]
    for text in (page, markdown):
        assert "In how many settings each arm is better or worse" in text


def test_a_figure_of_its_own_has_colours_a_background_and_words(study: Path, tmp_path: Path) -> None:
    """Of a single setting it is the forest, and there is no table over settings."""
    figure = tmp_path / "figure.svg"
    write_report(study, tmp_path / "report.html", tmp_path / "report.md", figure)
    root = ET.fromstring(figure.read_text(encoding="utf-8"))
    assert [child.tag for child in root[:3]] == [f"{{{SVG}}}{tag}" for tag in ("title", "style", "rect")]
    assert "prefers-color-scheme: dark" in (root[1].text or "")
    assert root.attrib["aria-label"].startswith("Paired differences in points of accuracy")
    assert float(root.attrib["width"]) > 500
    assert not (tmp_path / "report-settings.csv").exists()


def test_a_figure_without_two_arms_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/sft/seed-0", [True, False])
    with pytest.raises(RecipeError, match="no two arms to compare, so there is no figure; leave out --figure"):
        write_report(tmp_path / "runs", tmp_path / "report.html", figure_path=tmp_path / "figure.svg")
    assert not (tmp_path / "report.html").exists()
