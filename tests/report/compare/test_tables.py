"""Tables: the order of arms and splits, the baseline, pooled seeds, and settings that differ."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from balanced_thinking.report.compare.plan import Plan, load_plan
from balanced_thinking.report.compare.tables import make_tables
from balanced_thinking.runs.load import load_runs
from tests.report.helpers import report_of
from tests.report.synthetic import row, write_config, write_evaluation, write_run


def test_a_base_that_was_only_evaluated_is_an_arm_for_every_seed(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / f"sft/seed-{seed}", [True, True, False, True], seed=seed)
    write_evaluation(tmp_path / "Qwen2.5-VL/eval/world-test", [row(i, i == 0) for i in range(4)])
    tables = make_tables(load_runs(tmp_path))
    assert tables.arms == ("sft", "Qwen2.5-VL")
    (contrast,) = tables.contrasts
    assert (contrast.arm, contrast.points, [seed.seed for seed in contrast.seeds]) == ("Qwen2.5-VL", -50, [0, 1])
    assert [note for note in tables.notes if "Qwen" in note] == [
        "Qwen2.5-VL, seed 0: no training files: its answers are compared with those of every seed"
    ]
    rows = {row.arm: row for row in tables.splits["world-test"]}
    assert [(rows[arm].seeds, rows[arm].n, rows[arm].seed_range) for arm in tables.arms] == [
        (2, 4, (0.75, 0.75)),
        (0, 4, None),
    ]
    assert {failure.arm: failure.n for failure in tables.failures} == {"sft": 8, "Qwen2.5-VL": 4}
    assert "Items: 4 of world-test. Seeds per arm: 2." in report_of(tmp_path)


def test_the_arm_with_uniform_weights_is_the_baseline_whatever_its_name(tmp_path: Path) -> None:
    for arm, weighting in (("a", "scale"), ("plain", "uniform")):
        write_config(write_run(tmp_path / arm / "seed-0", [True, False]), weighting)
    assert make_tables(load_runs(tmp_path)).arms == ("plain", "a")


def test_the_test_split_of_any_data_is_the_main_one(study: Path) -> None:
    write_run(study / "sft/seed-0", [True], split="another-train", data="another")
    assert make_tables(load_runs(study)).main_split == "world-test"


def test_what_every_arm_has_comes_before_what_one_arm_has(study: Path) -> None:
    """Else the verdict would be about a data set on which nothing can be compared."""
    write_run(study / "sft/seed-0", [True], split="another-test", data="another")
    assert make_tables(load_runs(study)).main_split == "world-test"


def write_benchmarks(root: Path, *names: str) -> None:
    """Two arms, evaluated on these (`<data>-<split>`)."""
    for arm in ("sft", "scale-sft"):
        for name in names:
            data, split = name.split("-")
            run = write_run(root / arm / "seed-0", [arm == "sft"] * 30, split=name, data=f"data/{data}")
            place = run / "eval" / name / "summary.json"
            place.write_text(json.dumps(json.loads(place.read_text()) | {"split": split}))


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        ("evaluate: {data/scienceqa: {}, data/chartqa: {}}", ["scienceqa-test", "chartqa-test", "chartqa-val"]),
        ("evaluate: {data/chartqa: {splits: [val, test]}}", ["chartqa-val", "chartqa-test", "scienceqa-test"]),
        (
            "evaluate: {data/chartqa: {splits: val}}\nsettings: {hard: {evaluate: {data/scienceqa: }}}",
            ["chartqa-val", "scienceqa-test", "chartqa-test"],
        ),
        ("evaluate: 3\nsettings: [hard]", ["chartqa-test", "scienceqa-test", "chartqa-val"]),  # nothing to go by
        ("", ["chartqa-test", "scienceqa-test", "chartqa-val"]),
    ],
)
def test_the_study_says_which_benchmark_is_the_main_one(tmp_path: Path, plan: str, expected: list[str]) -> None:
    write_benchmarks(tmp_path, "chartqa-val", "chartqa-test", "scienceqa-test")
    (tmp_path / "study.yaml").write_text(plan or "margin: 1")
    tables = make_tables(load_runs(tmp_path), load_plan(tmp_path))
    assert list(tables.splits) == list(tables.by_split) == expected
    assert tables.main_split == tables.contrasts[0].split == expected[0]


def test_the_study_says_what_is_compared_and_in_which_order(study: Path) -> None:
    write_run(study / "sft+grpo/seed-0", [True] * 45 + [False] * 55)
    plan = Plan(contrasts=(("scale-sft", "sft+grpo"), ("scale-sft", "absent")), arms=("sft", "sft+grpo", "scale-sft"))
    tables = make_tables(load_runs(study), plan)
    assert tables.arms == ("sft", "sft+grpo", "scale-sft")
    assert [(c.arm, c.base) for c in tables.contrasts] == [("scale-sft", "sft+grpo")]
    assert "contrasts of the study without runs of both arms: scale-sft with absent" in tables.notes


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("a: [", "study.yaml cannot be read"),
        ("- a", "study.yaml holds list; expected a mapping"),
        ("contrasts: [[a, b], [c]]", "1 contrasts are not [arm, baseline] pairs"),
        ("margin: wide", "margin is 'wide'; expected points from 0 to below 100"),
    ],
)
def test_a_damaged_plan_is_a_note(study: Path, text: str, note: str) -> None:
    (study / "study.yaml").write_text(text)
    assert any(note in found for found in load_plan(study).notes)


def test_a_setting_alone_is_reported_by_the_plan_of_its_study(tmp_path: Path) -> None:
    (tmp_path / "ratio-10").mkdir()
    (tmp_path / "study.yaml").write_text("margin: 2\nsettings: {ratio-10: {}}\n")
    assert load_plan(tmp_path / "ratio-10").margin == 2
    assert load_plan(tmp_path).settings == ("ratio-10",)


def test_seeds_are_pooled_without_narrowing_the_interval(study: Path) -> None:
    write_run(study / "sft/seed-1", [True] * 41 + [False] * 59)
    sft, scale = make_tables(load_runs(study)).splits["world-test"]
    assert (sft.accuracy, sft.n, sft.seeds, sft.seed_range) == (0.36, 100, 2, (0.31, 0.41))
    assert (sft.low, sft.high) == pytest.approx((0.27267, 0.45769), abs=1e-4)  # statsmodels, 36 of 100
    assert scale.seed_range is None
    assert scale.relative_time == 1.0


def test_a_mean_score_of_zero_is_a_score_and_a_missing_one_is_not(tmp_path: Path) -> None:
    for arm, score in (("sft", {"score": 0.0}), ("scale-sft", {})):
        path = write_run(tmp_path / arm / "seed-0", [False] * 4) / "eval/world-test/summary.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | score))
    rows = make_tables(load_runs(tmp_path)).splits["world-test"]
    assert [row.score for row in rows] == [0.0, None]


def test_families_have_the_accuracy_of_every_arm(study: Path) -> None:
    rows = {family.family: family for family in make_tables(load_runs(study)).families}
    assert rows["count"].n == rows["spatial"].n == 50
    assert rows["count"].accuracies == (0.32, 0.40)  # of 50 even items: 16 of sft, 20 of scale-sft


def test_failure_shares_add_up_and_count_all_seeds(runs: Path) -> None:
    for failure in make_tables(load_runs(runs / "ratio-10")).failures:
        assert failure.n == 120
        assert sum(failure.shares) == pytest.approx(1)


def test_settings_that_differ_are_marked(study: Path) -> None:
    write_config(study / "sft/seed-0", "uniform")
    config = {setting.key: setting for setting in make_tables(load_runs(study)).config}
    assert config["training.weighting"].values == (("uniform",), ("scale",))
    assert config["training.weighting"].differs
    assert not config["lora.r"].differs
