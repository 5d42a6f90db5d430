"""What a report concludes: paired tests, adjusted and over all seeds, equivalence, power, and who is best."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from balanced_thinking.report.compare import contrasts
from balanced_thinking.report.compare.contrasts import FEW_SEEDS, Contrast
from balanced_thinking.report.compare.plan import Plan, load_plan
from balanced_thinking.report.compare.samples import choose_samples
from balanced_thinking.report.compare.tables import Tables, make_tables
from balanced_thinking.report.write.wording import evidence, headline, leading, power, rule, weakness, within_margin
from balanced_thinking.runs.load import load_runs
from balanced_thinking.statistics.bootstrap import paired_bootstrap
from tests.report.synthetic import outcomes, write_config, write_run


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two arms with one seed: 10 items only scale-sft gets right, 1 only sft."""
    arm, base = outcomes(30, 10, 1, 59)
    write_run(tmp_path / "runs/sft/seed-0", base)
    write_run(tmp_path / "runs/scale-sft/seed-0", arm)
    return tmp_path / "runs"


def differing(root: Path, ours: dict[str, Any], theirs: dict[str, Any]) -> Tables:
    """Two arms whose summaries say these things."""
    for arm, said in (("sft", ours), ("scale-sft", theirs)):
        run = write_run(root / arm / "seed-0", [arm == "scale-sft"] * 40)
        place = run / "eval" / "world-test" / "summary.json"
        place.write_text(json.dumps(json.loads(place.read_text()) | said))
    return make_tables(load_runs(root))


@pytest.mark.parametrize(
    ("ours", "theirs", "note"),
    [
        ({"prompt": "question", "scorer": "lmms"}, {"prompt": "question", "scorer": "exact"}, "scorer lmms (sft"),
        ({"prompt": "question", "scorer": "exact"}, {"prompt": "instructed", "scorer": "exact"}, "prompt instructed"),
        ({"max_new_tokens": 160}, {"max_new_tokens": 20}, "max_new_tokens 160 (sft, seed 0)"),
        ({"engine": "vllm"}, {"engine": "transformers"}, "engine vllm (sft, seed 0)"),
        ({"max_new_tokens": 160}, {}, ""),  # written before summaries said so
        ({"scorer": "exact"}, {"scorer": "exact", "prompt": "question", "engine": "vllm"}, ""),  # the prompt of then
    ],
)
def test_arms_are_compared_unless_both_say_that_they_were_asked_in_another_manner(
    tmp_path: Path, ours: dict[str, Any], theirs: dict[str, Any], note: str
) -> None:
    tables = differing(tmp_path, ours, theirs)
    assert bool(tables.contrasts) is not bool(note)
    told = [found for found in tables.notes if "world-test is not asked and judged alike in all runs" in found]
    assert [note in found for found in told] == [True] * bool(note)


def write_items(folder: Path, digests: list[str]) -> None:
    """A run whose predictions tell their items apart, all of them right where it is scale-sft."""
    run = write_run(folder, [folder.parent.name == "scale-sft"] * len(digests))
    place = run / "eval" / "world-test" / "predictions.jsonl"
    rows = [json.loads(line) for line in place.read_text().splitlines()]
    told = [row | {"digest": digest} for row, digest in zip(rows, digests, strict=True)]
    place.write_text("".join(json.dumps(row) + "\n" for row in told))


def test_items_of_another_version_of_the_data_are_not_paired(tmp_path: Path) -> None:
    """Row numbers are ids where data has none: in a file with one row less, most of them name another item."""
    versions = {
        "sft": [f"item {i}" for i in range(40)],
        "scale-sft": [f"item {i}" for i in [*range(20), *range(21, 40)]],
    }
    for arm, digests in versions.items():
        write_items(tmp_path / arm / "seed-0", digests)
    runs = load_runs(tmp_path)
    tables = make_tables(runs)
    assert not tables.contrasts
    assert any(
        "world-test is not the same items in all runs: version 1 (scale-sft, seed 0); version 2, where 19 of 40 items "
        "have another question, answer, option or picture (sft, seed 0)" in note
        for note in tables.notes
    )
    samples = choose_samples(runs, tables.arms, tables.main_split, tmp_path)
    assert len(samples.items[0].replies) == 1


def test_what_is_compared_in_part_is_told_of_every_split(study: Path) -> None:
    write_run(study / "sft/seed-0", [True] * 40, split="world-longer")
    write_run(study / "scale-sft/seed-0", [True] * 30, split="world-longer")
    write_run(study / "sft/seed-0", [True] * 40, split="world-paraphrase")
    tables = make_tables(load_runs(study))
    assert tables.main_split == "world-test"
    assert "scale-sft, seed 0: compared with sft on the 30 items of world-longer that both answered" in tables.notes
    assert "scale-sft: not compared with sft, no seed has comparable predictions of both on world-paraphrase" in (
        tables.notes
    )


def test_fewer_items_of_the_same_version_are_still_compared(tmp_path: Path) -> None:
    write_items(tmp_path / "sft/seed-0", [f"item {i}" for i in range(40)])
    write_items(tmp_path / "scale-sft/seed-0", [f"item {i}" for i in range(30)])
    tables = make_tables(load_runs(tmp_path))
    assert [contrast.n for contrast in tables.contrasts] == [30]
    assert not any("same items" in note for note in tables.notes)


def test_a_shown_difference_is_told_with_its_counts_and_p(study: Path) -> None:
    (contrast,) = make_tables(load_runs(study)).contrasts
    (seed,) = contrast.seeds
    assert (seed.both, seed.only_arm, seed.only_base, seed.neither) == (30, 10, 1, 59)
    assert seed.p == pytest.approx(0.01171875)  # 2 * (1 + 11) / 2**11
    assert seed.points == pytest.approx(9.0)
    assert 0 < seed.interval[0] < 9 < seed.interval[1]
    assert headline(contrast) == "In the one seed that was run, scale-sft is better than sft by 9.0 points."
    assert "p = 0.012" in evidence(contrast)


def test_without_a_difference_none_is_claimed_and_the_page_says_what_could_be_seen(tmp_path: Path) -> None:
    arm, base = outcomes(30, 10, 8, 52)
    write_run(tmp_path / "sft/seed-0", base)
    write_run(tmp_path / "scale-sft/seed-0", arm)
    (contrast,) = make_tables(load_runs(tmp_path)).contrasts
    assert headline(contrast) == "No difference between scale-sft and sft could be shown."
    assert "not shown does not mean equal" in power(contrast)
    # 100 items with 18 % disagreement at 80 % power: about 2.8 * sqrt(0.18 / 100).
    assert 9 < contrast.detectable_points < 14


def test_arms_that_always_agree_are_not_called_different(tmp_path: Path) -> None:
    for arm in ("sft", "scale-sft"):
        write_run(tmp_path / arm / "seed-0", [True] * 30 + [False] * 20)
    (contrast,) = make_tables(load_runs(tmp_path)).contrasts
    assert (contrast.shown, contrast.detectable_points) == (False, None)
    assert "differ on only 0.0\u202f%" in power(contrast)


@pytest.mark.parametrize(
    ("seeds", "shown"),
    [
        ([(10, 0), (12, 1), (9, 1)], True),  # all point the same way, all significant
        ([(10, 0), (12, 1), (3, 1)], True),  # one not significant, but it agrees
        ([(9, 0), (5, 0), (5, 0)], False),  # one of three is significant
        ([(10, 0), (9, 1), (5, 0), (5, 0)], True),  # two are enough, of four seeds, too
        ([(10, 0), (12, 1), (1, 2)], False),  # one seed points the other way
        ([(0, 10), (1, 12)], True),  # worse is a difference, too
    ],
)
def test_several_seeds_must_agree(tmp_path: Path, seeds: list[tuple[int, int]], shown: bool) -> None:
    for k, (only, other) in enumerate(seeds):
        arm, base = outcomes(20, only, other, 70)
        write_run(tmp_path / f"scale-sft/seed-{k}", arm)
        write_run(tmp_path / f"sft/seed-{k}", base)
    (contrast,) = make_tables(load_runs(tmp_path)).contrasts
    assert contrast.shown is shown
    assert len(contrast.seeds) == len(seeds)


def test_more_contrasts_ask_for_a_smaller_p(study: Path) -> None:
    write_run(study / "sft-grpo/seed-0", [True] * 40 + [False] * 60)
    assert [contrast.alpha for contrast in make_tables(load_runs(study)).contrasts] == [0.025, 0.025]


def test_only_shared_seeds_and_shared_items_are_compared(study: Path) -> None:
    write_run(study / "scale-sft/seed-7", [True] * 100)
    write_run(study / "scale-sft/seed-0", [True] * 50)
    tables = make_tables(load_runs(study))
    (contrast,) = tables.contrasts
    assert [(seed.seed, seed.n) for seed in contrast.seeds] == [(0, 50)]
    assert any("50 items of world-test that both answered" in note for note in tables.notes)


def test_the_arm_with_uniform_weights_is_the_baseline_whatever_its_name(tmp_path: Path) -> None:
    for arm, weighting in (("a", "scale"), ("plain", "uniform")):
        write_config(write_run(tmp_path / arm / "seed-0", [True, False]), weighting)
    assert make_tables(load_runs(tmp_path)).arms == ("plain", "a")


def test_the_test_split_of_any_data_is_the_main_one(study: Path) -> None:
    write_run(study / "sft/seed-0", [True], split="another-train", data="another")
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


def test_ids_of_different_data_are_not_paired(study: Path) -> None:
    write_run(study / "scale-sft/seed-0", [True] * 100, data="other/world")
    write_run(study / "sft-more/seed-0", [True] * 100)
    runs = load_runs(study)
    tables = make_tables(runs)
    assert [contrast.arm for contrast in tables.contrasts] == ["sft-more"]
    assert any("world-test is not the same data in all runs: other/world (scale-sft" in note for note in tables.notes)
    samples = choose_samples(runs, tables.arms, tables.main_split, study)
    assert {reply.arm for reply in samples.items[0].replies} == {"sft", "sft-more"}


def test_seeds_are_pooled_without_narrowing_the_interval(study: Path) -> None:
    write_run(study / "sft/seed-1", [True] * 41 + [False] * 59)
    sft, scale = make_tables(load_runs(study)).splits["world-test"]
    assert (sft.accuracy, sft.n, sft.seeds, sft.seed_range) == (0.36, 100, 2, (0.31, 0.41))
    assert (sft.low, sft.high) == pytest.approx((0.27267, 0.45769), abs=1e-4)  # statsmodels, 36 of 100
    assert scale.seed_range is None
    assert scale.relative_time == 1.0


def test_families_stand_side_by_side(study: Path) -> None:
    rows = {family.family: family for family in make_tables(load_runs(study)).families}
    assert rows["count"].n == rows["spatial"].n == 50
    assert rows["count"].accuracies == (0.32, 0.40)  # of 50 even items: 16 of sft, 20 of scale-sft


def compared(root: Path, seeds: list[tuple[int, int]], *, agree: int = 90, margin: float | None = None) -> Contrast:
    """scale-sft against sft, with these counts of items that only one of them got right, seed by seed."""
    for k, (only, other) in enumerate(seeds):
        arm, base = outcomes(agree - 70, only, other, 70)
        write_run(root / f"scale-sft/seed-{k}", arm)
        write_run(root / f"sft/seed-{k}", base)
    (contrast,) = make_tables(load_runs(root), Plan(margin=margin)).contrasts
    return contrast


def test_the_study_says_what_is_compared_and_in_which_order(study: Path) -> None:
    write_run(study / "sft+grpo/seed-0", [True] * 45 + [False] * 55)
    plan = Plan(contrasts=(("scale-sft", "sft+grpo"), ("scale-sft", "absent")), arms=("sft", "sft+grpo", "scale-sft"))
    tables = make_tables(load_runs(study), plan)
    assert tables.arms == ("sft", "sft+grpo", "scale-sft")
    assert [(c.arm, c.base) for c in tables.contrasts] == [("scale-sft", "sft+grpo")]
    assert "contrasts of the study without runs of both arms: scale-sft with absent" in tables.notes


def test_p_is_adjusted_over_the_contrasts_of_a_split(study: Path) -> None:
    write_run(study / "sft-grpo/seed-0", [True] * 40 + [False] * 60)
    first, second = make_tables(load_runs(study)).contrasts
    assert [first.p, second.p] == pytest.approx([0.01171875] * 2)
    assert [first.p_holm, second.p_holm] == pytest.approx([2 * 0.01171875] * 2)
    assert "adjusted by Holm over 2 contrasts" in rule((first, second))


def test_from_five_seeds_on_the_bootstrap_decides_though_no_seed_is_significant_alone(tmp_path: Path) -> None:
    contrast = compared(tmp_path, [(7, 2), (8, 3), (6, 2), (7, 1), (8, 2)])
    assert len(contrast.seeds) == FEW_SEEDS
    assert contrast.significant_seeds < FEW_SEEDS / 2
    assert contrast.shown
    assert contrast.interval[0] > 0
    assert contrast.detectable_points == pytest.approx(2.8016 * (contrast.spread or 0), rel=1e-3)


def test_from_five_seeds_on_one_may_point_the_other_way(tmp_path: Path) -> None:
    contrast = compared(tmp_path, [(12, 0), (9, 1), (10, 0), (11, 2), (1, 2), (10, 0)])
    assert not contrast.same_way
    assert contrast.shown
    assert "is better than" in headline(contrast)


def studies(seeds: int, true_points: float, *, many: int, items: int = 1000) -> list[Contrast]:
    """Studies of two arms that disagree on 32 % of the items and whose trainings differ by 2.5 points, as ours do."""
    rng, ids, found = np.random.default_rng(seeds), [str(i) for i in range(items)], []
    for _ in range(many):
        shift_S1 = rng.normal(true_points, 2.5, size=(seeds, 1)) / 100
        drawn_SQ, better_S1 = rng.random((seeds, items)), (0.32 + shift_S1) / 2
        only_SQ, other_SQ = drawn_SQ < better_S1, (drawn_SQ >= better_S1) & (drawn_SQ < 0.32)
        answers = [
            (seed, dict(zip(ids, ~other_Q, strict=True)), dict(zip(ids, ~only_Q, strict=True)))
            for seed, (only_Q, other_Q) in enumerate(zip(only_SQ, other_SQ, strict=True))
        ]
        alone = contrasts._contrast("arm", "base", "test", answers, None)
        found.append(replace(alone, p_holm=alone.p))
    return found


@pytest.mark.parametrize("seeds", [2, 3, 4, 5, 10])
def test_what_is_called_detectable_is_found_four_times_in_five_and_nothing_seldom(
    seeds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 studies give a standard error of 1.5 % at 5 % and of 3 % at 80 %."""
    monkeypatch.setattr(contrasts, "paired_bootstrap", partial(paired_bootstrap, resamples=400))
    equal = studies(seeds, 0.0, many=200)
    assert np.mean([contrast.shown for contrast in equal]) <= 0.05
    detectable = fmean(contrast.detectable_points or 0 for contrast in equal)
    assert 0.7 <= np.mean([contrast.shown for contrast in studies(seeds, detectable, many=200)]) <= 0.9


def test_a_likely_difference_says_why_it_is_not_shown(tmp_path: Path) -> None:
    contrast = compared(tmp_path, [(9, 0), (5, 0), (5, 0)])
    assert contrast.p_holm < 0.05
    assert headline(contrast) == (
        "scale-sft leads sft by 6.5 points, but this is not shown: 1 of 3 seeds tells them apart by itself, and 3 are "
        "too few to rest on their average."
    )


def test_the_pooled_interval_is_the_same_every_time(tmp_path: Path) -> None:
    contrast = compared(tmp_path, [(10, 1), (9, 2), (12, 1)])
    (again,) = make_tables(load_runs(tmp_path)).contrasts
    assert (again.interval, again.p) == (contrast.interval, contrast.p)
    assert "over 3 seeds" in evidence(contrast)


@pytest.mark.parametrize(
    ("seeds", "as_good", "equal"),
    [
        ([(3, 3)], "not shown", "not shown"),  # equal, but 76 items cannot tell
        ([(12, 0), (12, 0)], "shown", "not shown"),  # better is as good, not equal
        ([(0, 12), (0, 12)], "not shown", "not shown"),
        ([(0, 0), (0, 0)], "not shown", "not shown"),  # they always agree, which 90 items do not make certain
    ],
)
def test_as_good_within_the_margin_is_told(
    tmp_path: Path, seeds: list[tuple[int, int]], as_good: str, equal: str
) -> None:
    told = within_margin(compared(tmp_path, seeds, margin=1.0))
    assert f"scale-sft is as good as sft within 1 point: {as_good} (p" in told
    assert f"equal within 1 point: {equal} (p" in told


def test_a_wide_margin_can_be_shown(tmp_path: Path) -> None:
    told = within_margin(compared(tmp_path, [(3, 3)] * 3, margin=10.0))
    assert "as good as sft within 10 points: shown" in told
    assert "equal within 10 points: shown" in told


def test_without_a_study_no_margin_is_made_up(study: Path) -> None:
    (contrast,) = make_tables(load_runs(study)).contrasts
    assert within_margin(contrast) == ""


def test_too_little_power_is_said_before_anything_else(study: Path) -> None:
    (contrast,) = make_tables(load_runs(study)).contrasts
    assert weakness([contrast]).startswith("This study has too little power: between scale-sft and sft only a true")
    assert "one of 3 points would often be missed" in weakness([contrast])
    assert weakness([]) == ""


def test_enough_power_is_not_complained_about_unless_the_margin_asks_for_more(tmp_path: Path) -> None:
    contrast = compared(tmp_path, [(10, 8)], agree=2000)
    assert contrast.detectable_points == pytest.approx(2.8016 * (18 / 2018) ** 0.5 / 2018**0.5 * 100, rel=1e-3)
    assert weakness([contrast]) == ""
    (strict,) = make_tables(load_runs(tmp_path), Plan(margin=0.5)).contrasts
    assert "one of 0.5 points would often be missed" in weakness([strict])


def test_the_best_arm_is_marked_only_where_it_beats_every_other(tmp_path: Path) -> None:
    for arm, right in (("sft", 30), ("a", 50), ("b", 52)):
        write_run(tmp_path / arm / "seed-0", [True] * right + [False] * (100 - right))
    leader = make_tables(load_runs(tmp_path)).leaders["world-test"]
    assert (leader.arm, leader.second.base, leader.best) == ("b", "a", False)
    assert leading(leader).startswith("No arm is shown to be best: b leads a by +2.0 points")
    write_run(tmp_path / "b" / "seed-0", [True] * 80 + [False] * 20)
    leader = make_tables(load_runs(tmp_path)).leaders["world-test"]
    assert leader.best
    assert leading(leader).startswith("b is shown to be better than every other arm: b leads a by +30.0 points")


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("a: [", "study.yaml cannot be read"),
        ("- a", "study.yaml holds list, a mapping was expected"),
        ("contrasts: [[a, b], [c]]", "1 contrasts are no [arm, baseline] pairs"),
        ("margin: wide", "margin is 'wide', points from 0 to below 100 were expected"),
    ],
)
def test_a_damaged_plan_is_told(study: Path, text: str, note: str) -> None:
    (study / "study.yaml").write_text(text)
    assert any(note in found for found in load_plan(study).notes)


def test_a_setting_alone_is_reported_by_the_plan_of_its_study(tmp_path: Path) -> None:
    (tmp_path / "ratio-10").mkdir()
    (tmp_path / "study.yaml").write_text("margin: 2\nsettings: {ratio-10: {}}\n")
    assert load_plan(tmp_path / "ratio-10").margin == 2
    assert load_plan(tmp_path).settings == ("ratio-10",)
