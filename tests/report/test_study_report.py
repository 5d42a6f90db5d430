"""A study's report: chains of runs, what they cost, how answers fail, several settings on one page."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from balanced_thinking.report import write_report
from balanced_thinking.report.build import load_report
from balanced_thinking.report.compare.cost import chain_seconds, cost_rows, training_chain
from balanced_thinking.report.compare.samples import MAX_BYTES, choose_samples, embed_image
from balanced_thinking.report.compare.tables import group, make_tables
from balanced_thinking.report.draw.forest import draw_forest, draw_times, forest_rows
from balanced_thinking.runs.find import find_settings
from balanced_thinking.runs.ledger import read_ledger
from balanced_thinking.runs.load import load_runs
from balanced_thinking.runs.outcomes import MALFORMED, RIGHT, SLIP, TRUNCATED, WRONG, classify_outcome
from balanced_thinking.runs.records import LedgerEntry, Prediction
from tests.report.synthetic import SETTINGS, row, write_run, write_study


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two settings, four arms, two seeds."""
    return write_study(tmp_path_factory.mktemp("study") / "runs", seeds=2, n=60)


def test_a_chain_takes_its_own_time_and_its_parents_once(runs: Path) -> None:
    found = load_runs(runs / "ratio-10")
    by_label = {run.label: run for run in found}
    child, parent = by_label["sft+grpo, seed 1"], by_label["sft, seed 1"]
    assert training_chain(child, found) == [parent, child]
    assert chain_seconds(child, found) == child.train_seconds + parent.train_seconds
    assert chain_seconds(parent, found) == parent.train_seconds
    rows = {row.arm: row for row in make_tables(found).splits["world-test"]}
    assert rows["sft"].relative_time == 1
    assert rows["sft+grpo"].relative_time > 5


def test_a_chain_is_followed_where_the_study_was_moved(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "ratio-10", tmp_path / "elsewhere")
    found = load_runs(tmp_path / "elsewhere")
    for run in found:
        assert len(training_chain(run, found)) == (2 if run.stage == "grpo" else 1)


def test_a_chain_whose_start_is_absent_is_told(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "ratio-10/sft+grpo", tmp_path / "sft+grpo")
    shutil.copytree(runs / "ratio-10/scale-sft", tmp_path / "scale-sft")
    notes = make_tables(load_runs(tmp_path)).notes
    assert sum("which is not among these runs; its time is not counted" in note for note in notes) == 2


def test_runs_that_start_from_each_other_do_not_hang_the_report(tmp_path: Path) -> None:
    for arm, other in (("a", "b"), ("b", "a")):
        folder = write_run(tmp_path / arm / "seed-0", [True])
        (folder / "config.yaml").write_text(f"model: {tmp_path / other / 'seed-0'}\n")
    runs = load_runs(tmp_path)
    assert [chain_seconds(run, runs) for run in runs] == [240.0, 240.0]


def test_costs_are_means_of_the_ledger_and_of_a_part_done_again_the_last_counts(runs: Path, tmp_path: Path) -> None:
    groups = list(group(load_runs(runs / "ratio-10")).values())
    ledger = read_ledger(runs, [])
    again = LedgerEntry(run="ratio-10/sft/seed-0", part="train", wall_seconds=1000.0, cpu_seconds=0, tokens=0)
    rows = {(row.arm, row.part): row for row in cost_rows(groups, [*ledger, again], runs)}
    walls = [r.wall_seconds for r in ledger if r.run.startswith("ratio-10/sft/") and r.part == "train"]
    assert rows["sft", "training (sft)"].wall_seconds == pytest.approx((walls[1] + 1000) / 2)
    assert rows["sft", "training (sft)"].peak_mib == 1500
    assert rows["sft", "evaluation"].wall_seconds == 12.5
    assert rows["sft+grpo", "training (grpo)"].relative > 5
    assert rows["sft+grpo", "evaluation"].relative is None


def test_without_a_ledger_costs_are_what_runs_recorded(tmp_path: Path) -> None:
    write_run(tmp_path / "sft/seed-0", [True], tokens=5000, peak_mib=900)
    (cost,) = cost_rows([load_runs(tmp_path)], [], tmp_path)
    assert (cost.wall_seconds, cost.cpu_seconds, cost.tokens, cost.peak_mib) == (120.0, None, 5000, 900)
    write_run(tmp_path / "sft/seed-0", [True], device="cpu", train_cpu_seconds=80.0)
    (cost,) = cost_rows([load_runs(tmp_path)], [], tmp_path)
    assert (cost.wall_seconds, cost.cpu_seconds) == (120.0, 80.0)


def wrong(think: str, **changes: Any) -> dict[str, Any]:
    return row(0, False) | {"completion": f"<think>{think}</think><answer>blue</answer>"} | changes


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        (row(0, True), RIGHT),
        (wrong("red", truncated=True, malformed=True), TRUNCATED),
        (wrong("red", malformed=True), MALFORMED),
        (wrong("the tile is blue .\nso its color is red ."), SLIP),
        (wrong("So it is Red."), SLIP),  # case does not matter
        (wrong("so its color is red . it is not blue ."), WRONG),  # only the last sentence concludes
        (wrong("it is red or blue ."), WRONG),  # both are named: it cannot be told
        (wrong("it is bored ."), WRONG),  # part of a word
        (wrong("so there are 3 .", gold="3", prediction="4"), SLIP),
        (wrong("so there are 13 .", gold="3", prediction="4"), WRONG),
        (wrong("take a look .", gold="A", prediction="B"), WRONG),  # a letter alone is no evidence
        (wrong("its color is green . option D is green .", gold="D", prediction="B"), SLIP),
        (wrong("the answer is (D)", gold="D", prediction="B"), SLIP),
        (wrong("", completion="no tags at all: red"), WRONG),
        (wrong("red .", gold="(red)", prediction=None), WRONG),
    ],
)
def test_every_completion_ends_in_one_group(prediction: dict[str, Any], expected: str) -> None:
    assert classify_outcome(Prediction(**({"id": "one"} | prediction)), "think-answer") == expected


def test_failure_shares_add_up_and_count_all_seeds(runs: Path) -> None:
    for failure in make_tables(load_runs(runs / "ratio-10")).failures:
        assert failure.n == 120
        assert sum(failure.shares) == pytest.approx(1)


def test_settings_are_those_of_the_study_else_any_folder_of_arms(runs: Path, tmp_path: Path) -> None:
    assert find_settings(runs, ("ratio-40", "ratio-10", "absent")) == [
        (name, runs / name) for name in ("ratio-40", "ratio-10")
    ]
    assert [name for name, _ in find_settings(runs, ())] == list(SETTINGS)
    assert find_settings(runs / "ratio-10", ()) == [(None, runs / "ratio-10")]


def test_several_settings_make_one_page_with_the_same_numbers_beside_it(runs: Path, tmp_path: Path) -> None:
    page = write_report(runs, tmp_path / "report.html", tmp_path / "report.md").read_text(encoding="utf-8")
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert {*re.findall(r'href="#([^"]+)"', page), *re.findall(r"url\(#([^)]+)\)", page)} <= set(ids)
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    for text in (html.unescape(page), markdown.replace("\\", "")):
        assert "This study has too little power in 2 of 2 settings (ratio-10, ratio-40)" in text
    for setting, contrast in load_report(runs).contrasts:
        numbers = f"{contrast.points:+.1f}".replace("-", "−")
        assert setting in page
        assert numbers in html.unescape(page)
        assert numbers in markdown
    arms = list(csv.DictReader((tmp_path / "report.csv").open()))
    contrasts = list(csv.DictReader((tmp_path / "report-contrasts.csv").open()))
    assert [row["setting"] for row in arms] == ["ratio-10"] * 4 + ["ratio-40"] * 4
    assert len(contrasts) == 6
    assert float(contrasts[0]["margin"]) == 1.0


ORDER = (
    *("Verdict", "Arms", "Paired differences", "Accuracy against training time", "Training curves", "Failures"),
    *("Question families", "Costs", "Samples", "Configuration"),
)


def test_one_setting_and_several_tell_their_parts_in_one_order(runs: Path, tmp_path: Path) -> None:
    one = write_report(runs / "ratio-10", tmp_path / "one.html").read_text(encoding="utf-8")
    several = write_report(runs, tmp_path / "several.html").read_text(encoding="utf-8")
    nav = re.findall(r'<a href="#[^"]+">([^<]+)</a>', one)
    assert tuple(nav) == tuple(re.findall(r"<h2[^>]*>([^<]+)</h2>", one)) == ORDER
    outer = re.findall(r"<h2[^>]*>([^<]+)</h2>", several)
    assert outer == re.findall(r'<a href="#[^"]+">([^<]+)</a>', several)
    assert outer == ["Verdict", "ratio-10", "ratio-40", "Samples", "Configuration"]
    for setting in several.split("<h2")[2:4]:
        parts = re.findall(r"<(?:h3|summary)>([^<]+)</(?:h3|summary)>", setting)
        assert parts[0] == "Verdict with its evidence, seed by seed"
        assert tuple(part for part in parts if part in ORDER) == ORDER[1:8]


def test_a_run_beside_its_seeds_is_told_where_it_is_not_shown(tmp_path: Path) -> None:
    for folder in ("sft/seed-0", "sft"):
        write_run(tmp_path / folder, [True, False])
    assert [note for note in load_report(tmp_path).notes if "is not shown" in note] == [
        f"{tmp_path / 'sft'} is a run itself, which is not shown beside its seeds: move it to a folder of its own"
    ]


def test_what_lies_beside_the_settings_is_told(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    assert not load_report(tmp_path / "runs").notes
    write_run(tmp_path / "runs/base", [True, False])
    assert load_report(tmp_path / "runs").notes == (
        "not shown, because they lie beside the settings and not in one: base",
    )


def test_one_order_of_arms_colours_all_settings(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs/ratio-10/sft")
    report = load_report(tmp_path / "runs")
    assert report.arms == ("sft", "scale-sft", "sft+grpo", "scale-sft+grpo")
    assert report.sections[0].tables.arms == report.arms[1:]
    assert any("ratio-10: contrasts of the study without runs of both arms" in note for note in report.all_notes)


def test_drawings_hold_hostile_names_as_text(tmp_path: Path) -> None:
    arms = ["sft", "$x^<script>&\x01" + "y" * 80]
    for arm in arms:
        write_run(tmp_path / arm / "seed-0", [True] * 5 + [arm == "sft"] * 5)
    runs = load_runs(tmp_path)
    tables = make_tables(runs)
    forest = draw_forest(forest_rows(tables.by_split, tables.arms), 1.0, "forest")
    times = draw_times(group(runs), tables.arms, "world-test", "times")
    assert forest is not None
    assert times is not None
    for drawing in (forest, times):
        assert "<script" not in drawing.svg
        assert "$x^&lt;script&gt;&amp;" in drawing.svg
        assert "y" * 45 not in re.sub(r'aria-label="[^"]*"', "", drawing.svg)
        assert 'role="img"' in drawing.svg
        assert "style=" not in drawing.svg


def test_the_forest_tells_every_difference_in_words(runs: Path) -> None:
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
    assert draw_times(group(runs), ("sft",), "world-test", "times") is None


def test_large_pictures_and_long_texts_do_not_make_a_large_page(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8)
    for arm in ("sft", "scale-sft"):
        extra = {"images": ["noise.png"], "completion": "<think>" + "long " * 20_000}
        folder = write_run(tmp_path / arm / "seed-0", [arm == "sft"] * 60, extra=extra)
        Image.fromarray(noise).save(folder / "eval/world-test/noise.png")
    uri = embed_image(tmp_path / "sft/seed-0/eval/world-test/noise.png", tmp_path)
    assert uri is not None
    assert uri.startswith("data:image/jpeg;base64,")
    samples = choose_samples(load_runs(tmp_path), ("sft", "scale-sft"), "world-test", tmp_path)
    assert 1 < len(samples.items) < 48
    assert sum(sample.size for sample in samples.items) <= MAX_BYTES


def test_a_study_page_stays_small(runs: Path, tmp_path: Path) -> None:
    assert write_report(runs, tmp_path / "report.html").stat().st_size < 2_000_000


def test_samples_hold_malformed_ones_as_well(tmp_path: Path) -> None:
    for arm in ("sft", "scale-sft"):
        folder = write_run(tmp_path / arm / "seed-0", [arm == "sft"] * 100 + [True] * 100)
        path = folder / "eval/world-test/predictions.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows[150]["malformed"] = True
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    samples = choose_samples(load_runs(tmp_path), ("sft", "scale-sft"), "world-test", tmp_path)
    assert [sample.id for sample in samples.items if sample.malformed] == ["item-150"]
    assert len(samples.items) == 48
