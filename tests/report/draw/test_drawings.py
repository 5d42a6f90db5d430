"""Drawings: their description in words, their values, and hostile names."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from balanced_thinking.report.compare.tables import group_by_arm, make_tables
from balanced_thinking.report.draw.curves import draw_curves, running_mean
from balanced_thinking.report.draw.forest import draw_forest, forest_rows
from balanced_thinking.report.draw.times import draw_times
from balanced_thinking.runs.load import load_runs
from tests.report.synthetic import write_run


def test_a_number_that_no_float_holds_is_left_out(study: Path) -> None:
    (study / "sft/seed-0/metrics.jsonl").write_text(f'{{"step": 0, "think_nll": 1{"0" * 400}}}\n')
    assert "sft" not in draw_curves(load_runs(study), ("sft", "scale-sft"))[0].alternative.replace("scale-sft", "")


def test_drawings_say_where_they_end_and_what_they_left_out(study: Path) -> None:
    with (study / "sft/seed-0/metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "answer_nll": NaN}\n')
    drawings = {drawing.title: drawing for drawing in draw_curves(load_runs(study), ("sft", "scale-sft"))}
    loss = drawings["Loss on the answer"]
    assert "sft from 2.95 to 1.15 at step 19" in loss.alternative  # the running mean of the two values at each end
    assert 'role="img"' in loss.svg
    assert "currentColor" in loss.svg
    assert "style=" not in loss.svg
    assert "1 values were not finite" in loss.alternative


@pytest.mark.parametrize("scale", [1e-7, 1.0, 1e6])
@pytest.mark.parametrize("last", [3, 1000, 20_000, 1_000_000])
def test_labels_of_curves_are_inside_the_drawing(tmp_path: Path, scale: float, last: int) -> None:
    write_run(tmp_path / "sft/seed-0", [True])
    rows = [{"step": last * i // 20, "think_nll": scale * (i + 1) ** 2} for i in range(21)]
    (tmp_path / "sft/seed-0/metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (drawing,) = draw_curves(load_runs(tmp_path), ("sft",))
    root = ET.fromstring(drawing.svg)
    width, height = (float(size) for size in root.attrib["viewBox"].split()[2:])
    for text in root.iter("{http://www.w3.org/2000/svg}text"):
        x, y, long = float(text.attrib["x"]), float(text.attrib["y"]), 6.2 * len(text.text or "")
        before = {"middle": long / 2, "end": long}.get(text.attrib.get("text-anchor", "start"), 0.0)
        if "-90" not in text.attrib["transform"]:
            assert x - before >= 0, text.text
            assert x - before + long <= width + 1, text.text
        assert 8 <= y <= height - 2, text.text


@pytest.mark.parametrize("n", [1, 5, 40, 300])
def test_the_running_mean_equals_its_slow_definition(n: int) -> None:
    values = np.random.default_rng(0).normal(size=n)
    half = max(1, round(n * 0.03))
    slow = [values[max(0, i - half) : i + half + 1].mean() for i in range(n)]
    np.testing.assert_allclose(running_mean(values), slow, atol=1e-12)


def test_drawings_hold_hostile_names_as_text(tmp_path: Path) -> None:
    arms = ["sft", "$x^<script>&\x01" + "y" * 80]
    for arm in arms:
        write_run(tmp_path / arm / "seed-0", [True] * 5 + [arm == "sft"] * 5)
    runs = load_runs(tmp_path)
    tables = make_tables(runs)
    forest = draw_forest(forest_rows(tables.by_split, tables.arms), 1.0, "forest")
    times = draw_times(group_by_arm(runs), tables.arms, "world-test", "times")
    assert forest is not None
    assert times is not None
    for drawing in (forest, times):
        assert "<script" not in drawing.svg
        assert "$x^&lt;script&gt;&amp;" in drawing.svg
        assert "y" * 45 not in re.sub(r'aria-label="[^"]*"', "", drawing.svg)
        assert 'role="img"' in drawing.svg
        assert "style=" not in drawing.svg


def test_a_name_that_matplotlib_has_no_font_for_is_text_without_a_warning(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    for arm in ("sft", "模型"):
        write_run(tmp_path / arm / "seed-0", [True, False])
    drawing = draw_forest(forest_rows(make_tables(load_runs(tmp_path)).by_split, ["sft", "模型"]), None, "forest")
    assert drawing is not None
    assert "模型" in drawing.svg
    assert not [str(one.message) for one in recwarn if "Glyph" in str(one.message)]


def test_the_forest_describes_every_difference_in_words(runs: Path) -> None:
    tables = make_tables(load_runs(runs / "ratio-10"))
    drawing = draw_forest(forest_rows(tables.by_split, tables.arms), None, "forest")
    assert drawing is not None
    for contrast in tables.contrasts:
        low, high = (f"{x:+.1f}".replace("-", "−") for x in contrast.interval)
        assert f"{contrast.arm} minus {contrast.base}, world-test: " in drawing.alternative
        assert f"({low} to {high})" in drawing.alternative


def test_nothing_to_draw_is_no_drawing(tmp_path: Path) -> None:
    write_run(tmp_path / "sft/seed-0", [True], train_seconds=None)
    runs = load_runs(tmp_path)
    assert draw_forest([], 1.0, "forest") is None
    assert draw_times(group_by_arm(runs), ("sft",), "world-test", "times") is None
