"""Malformed and truncated outputs are compared as accuracies are, with the same values as computed elsewhere."""

from __future__ import annotations

import csv
import html
import random
from pathlib import Path

import pytest
from scipy.stats import binomtest
from statsmodels.stats.multitest import multipletests

from balanced_thinking.report import write_report
from balanced_thinking.report.compare.contrasts import Contrast
from balanced_thinking.report.compare.tables import make_tables
from balanced_thinking.runs.load import load_runs
from balanced_thinking.statistics.bootstrap import paired_bootstrap
from tests.report.synthetic import row, write_evaluation, write_run

N = 80
# How often the outputs of an arm are malformed; a third of these are truncated, too.
FLAWED = {"sft": 0.3, "closing-tags": 0.02, "scale-sft": 0.25}

Rows = dict[tuple[str, int], list[dict]]


def write_arms(root: Path, *, seeds: int, flawed: dict[str, float] = FLAWED) -> Rows:
    """Runs whose outputs are wrong where they are malformed. Returns their rows by arm and seed."""
    written = {}
    for arm, share in flawed.items():
        for seed in range(seeds):
            rng = random.Random(f"{arm} {seed}")
            run = write_run(root / arm / f"seed-{seed}", [True])
            rows = []
            for i in range(N):
                malformed, right = rng.random() < share, rng.random() < 0.7
                ending = {"malformed": malformed, "truncated": malformed and rng.random() < 0.34}
                rows.append(row(i, right and not malformed) | ending)
            write_evaluation(run / "eval/world-test", rows)
            written[arm, seed] = rows
    return written


def contrasts_of(root: Path) -> dict[str, Contrast]:
    return {contrast.arm: contrast for contrast in make_tables(load_runs(root)).contrasts}


@pytest.mark.parametrize("kind", ["malformed", "truncated"])
def test_they_have_the_tests_of_the_accuracies(kind: str, tmp_path: Path) -> None:
    rows = write_arms(tmp_path, seeds=2)
    found = {arm: getattr(contrast.outputs, kind) for arm, contrast in contrasts_of(tmp_path).items()}
    assert list(found) == ["closing-tags", "scale-sft"]
    for arm, contrast in found.items():
        flags = {key: [r[kind] for r in rows[key]] for key in rows}
        pairs = [list(zip(flags[arm, seed], flags["sft", seed], strict=True)) for seed in (0, 1)]
        for seed, pair in zip(contrast.seeds, pairs, strict=True):
            assert seed.counts == tuple(pair.count((a, b)) for a in (True, False) for b in (True, False))
            only = pair.count((True, False)), pair.count((False, True))
            assert seed.p == pytest.approx(binomtest(only[0], sum(only)).pvalue)
        ours, theirs = (
            {seed: {f"item-{i}": pair[side] for i, pair in enumerate(pairs[seed])} for seed in (0, 1)}
            for side in (0, 1)
        )
        slow = paired_bootstrap(ours, theirs).widened_for_seeds()
        assert contrast.points == pytest.approx(100 * slow.difference)
        assert contrast.interval == pytest.approx((100 * slow.low, 100 * slow.high))
    p = [contrast.p for contrast in found.values()]
    assert [contrast.p_holm for contrast in found.values()] == pytest.approx(multipletests(p, method="holm")[1])


def test_accuracy_where_both_are_complete_leaves_out_what_one_arm_lacks(tmp_path: Path) -> None:
    rows = write_arms(tmp_path, seeds=2)
    complete = contrasts_of(tmp_path)["closing-tags"].outputs.complete
    for found in complete.seeds:
        pairs = zip(rows["closing-tags", found.seed], rows["sft", found.seed], strict=True)
        kept = [(a["correct"], b["correct"]) for a, b in pairs if not any(r["malformed"] for r in (a, b))]
        assert found.item_count == len(kept) < N
        assert found.points == pytest.approx(100 * sum(a - b for a, b in kept) / len(kept))
    low, high = complete.interval
    assert low < complete.points < high


def test_an_arm_without_a_complete_output_has_no_such_accuracy(tmp_path: Path) -> None:
    write_arms(tmp_path / "runs", seeds=1, flawed={"sft": 0.1, "think-only": 1.0})
    outputs = contrasts_of(tmp_path / "runs")["think-only"].outputs
    assert outputs.complete is None
    assert outputs.malformed.points > 75
    page = write_report(tmp_path / "runs", tmp_path / "report.html", tmp_path / "report.md")
    assert "Outputs that exist, on world-test" in page.read_text(encoding="utf-8")
    (line,) = csv.DictReader((tmp_path / "report-contrasts.csv").open())
    assert line["complete_points"] == ""


def test_page_markdown_and_csv_have_the_same_numbers(tmp_path: Path) -> None:
    write_arms(tmp_path / "runs", seeds=2)
    contrast = contrasts_of(tmp_path / "runs")["closing-tags"]
    page = write_report(tmp_path / "runs", tmp_path / "report.html", tmp_path / "report.md")
    line = next(csv.DictReader((tmp_path / "report-contrasts.csv").open()))
    for kind in ("malformed", "truncated"):
        one = getattr(contrast.outputs, kind)
        assert float(line[f"{kind}_points"]) == pytest.approx(one.points)
        assert float(line[f"{kind}_p_holm"]) == pytest.approx(one.p_holm)
        interval = " to ".join(f"{x:+.1f}".replace("-", "−") for x in one.interval)
        for text in (html.unescape(page.read_text(encoding="utf-8")), (tmp_path / "report.md").read_text()):
            assert interval in text
            assert f"{one.points:+.1f}".replace("-", "−") in text
    assert float(line["complete_points"]) == pytest.approx(contrast.outputs.complete.points)
    assert float(line["complete_low"]) == pytest.approx(contrast.outputs.complete.interval[0])


def test_of_an_id_that_occurs_twice_the_last_row_counts(tmp_path: Path) -> None:
    for arm in ("sft", "scale-sft"):
        run = write_run(tmp_path / arm / "seed-0", [True])
        first = row(0, False) | {"malformed": arm == "sft", "truncated": arm == "sft"}
        write_evaluation(run / "eval/world-test", [first, row(0, True), row(1, True)])
    outputs = contrasts_of(tmp_path)["scale-sft"].outputs
    assert outputs.malformed.points == outputs.truncated.points == 0
