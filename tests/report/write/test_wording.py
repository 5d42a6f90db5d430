"""The sentences of the verdict: difference, evidence, margin, power and the best arm."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from balanced_thinking.report.compare.plan import Plan
from balanced_thinking.report.compare.tables import make_tables
from balanced_thinking.report.write.wording import (
    leader_sentence,
    low_power_warning,
    margin_sentence,
    power_sentence,
    verdict_evidence,
    verdict_headline,
)
from balanced_thinking.runs.load import load_runs
from tests.report.helpers import compared
from tests.report.synthetic import outcomes, write_run


def test_a_significant_difference_comes_with_its_counts_and_p(study: Path) -> None:
    (contrast,) = make_tables(load_runs(study)).contrasts
    (seed,) = contrast.seeds
    assert (seed.both, seed.only_arm, seed.only_base, seed.neither) == (30, 10, 1, 59)
    assert seed.p == pytest.approx(0.01171875)  # 2 * (1 + 11) / 2**11
    assert seed.points == pytest.approx(9.0)
    assert 0 < seed.interval[0] < 9 < seed.interval[1]
    assert verdict_headline(contrast) == "With the one seed that was run, scale-sft is better than sft by 9.0 points."
    assert "p = 0.012" in verdict_evidence(contrast)


def test_without_a_difference_none_is_claimed_and_the_page_says_what_could_be_seen(tmp_path: Path) -> None:
    arm, base = outcomes(30, 10, 8, 52)
    write_run(tmp_path / "sft/seed-0", base)
    write_run(tmp_path / "scale-sft/seed-0", arm)
    (contrast,) = make_tables(load_runs(tmp_path)).contrasts
    assert verdict_headline(contrast) == "There is no significant difference between scale-sft and sft."
    assert "No significant difference does not mean that the arms are equal" in power_sentence(contrast)
    # 100 items with 18 % disagreement at 80 % power: about 2.8 * sqrt(0.18 / 100).
    assert 9 < contrast.detectable_points < 14


def test_arms_that_always_agree_are_not_called_different(tmp_path: Path) -> None:
    for arm in ("sft", "scale-sft"):
        write_run(tmp_path / arm / "seed-0", [True] * 30 + [False] * 20)
    (contrast,) = make_tables(load_runs(tmp_path)).contrasts
    assert (contrast.is_significant, contrast.detectable_points) == (False, None)
    assert "right on 0 of 50 items. That is too few" in power_sentence(contrast)


def test_a_likely_difference_says_why_it_is_not_significant(tmp_path: Path) -> None:
    contrast = compared(tmp_path, [(9, 0), (5, 0), (5, 0)])
    assert contrast.p_holm < 0.05
    assert verdict_headline(contrast) == (
        "scale-sft leads sft by 6.5 points, but this does not count as significant. Only 1 of the 3 seeds differs "
        "significantly on its own; with fewer than 5 seeds, at least 2 must."
    )


@pytest.mark.parametrize(
    ("seeds", "as_good", "equal"),
    [
        ([(3, 3)], "not shown", "not shown"),  # equal, but 76 items are too few
        ([(12, 0), (12, 0)], "shown", "not shown"),  # better is as good, not equal
        ([(0, 12), (0, 12)], "not shown", "not shown"),
        ([(0, 0), (0, 0)], "not shown", "not shown"),  # they always agree, which 90 items do not make certain
        ([(1, 0), (0, 0), (0, 0)], "not shown", "not shown"),  # and one item does not make more certain
        ([(12, 0), (11, 0), (12, 0)], "shown", "not shown"),  # clearly better, with few items that differ from the rest
    ],
)
def test_non_inferiority_and_equivalence_have_a_sentence(
    tmp_path: Path, seeds: list[tuple[int, int]], as_good: str, equal: str
) -> None:
    sentence = margin_sentence(compared(tmp_path, seeds, margin=1.0))
    assert f"scale-sft is less than 1 point worse than sft (non-inferior): {as_good} (p" in sentence
    assert f"They differ by less than 1 point (equivalent): {equal} (p" in sentence


def test_equivalence_within_a_wide_margin_can_be_shown(tmp_path: Path) -> None:
    sentence = margin_sentence(compared(tmp_path, [(3, 3)] * 3, margin=10.0))
    assert "less than 10 points worse than sft (non-inferior): shown" in sentence
    assert "differ by less than 10 points (equivalent): shown" in sentence


def test_without_a_study_no_margin_is_made_up(study: Path) -> None:
    (contrast,) = make_tables(load_runs(study)).contrasts
    assert margin_sentence(contrast) == ""


def test_too_little_power_is_said_before_anything_else(study: Path) -> None:
    (contrast,) = make_tables(load_runs(study)).contrasts
    assert low_power_warning([contrast]).startswith(
        "This study has too little power: between scale-sft and sft it would often miss a true"
    )
    assert "often miss a true difference of 3 points. Only" in low_power_warning([contrast])
    assert low_power_warning([]) == ""


def test_enough_power_is_not_complained_about_unless_the_margin_asks_for_more(tmp_path: Path) -> None:
    contrast = compared(tmp_path, [(10, 8)], agree=2000)
    assert contrast.detectable_points == pytest.approx(2.8016 * (18 / 2018) ** 0.5 / 2018**0.5 * 100, rel=1e-3)
    assert low_power_warning([contrast]) == ""
    (strict,) = make_tables(load_runs(tmp_path), Plan(margin=0.5)).contrasts
    assert "often miss a true difference of 0.5 points." in low_power_warning([strict])


def test_an_arm_that_was_not_evaluated_is_no_baseline(tmp_path: Path) -> None:
    for arm in ("a", "b"):
        write_run(tmp_path / arm / "seed-0", [True] * 3)
    write_run(tmp_path / "sft" / "seed-0", [True] * 3)
    shutil.rmtree(tmp_path / "sft" / "seed-0" / "eval")
    tables = make_tables(load_runs(tmp_path))
    assert [(contrast.arm, contrast.base) for contrast in tables.contrasts] == [("b", "a")]


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        # three seeds whose differences sum to 1e-14
        ([((0, 3, 0, 0), True), ((2, 0, 1, 0), True), ((1, 0, 2, 0), True)], "have the same accuracy"),
        # ahead by a seed that the other arm lacks
        ([((0, 0, 31, 69), True), ((90, 0, 0, 10), False)], "that sft has, too, it is 31.0 points behind"),
    ],
)
def test_an_arm_that_is_not_ahead_of_the_next_does_not_lead(
    tmp_path: Path, seeds: list[tuple[tuple[int, int, int, int], bool]], said: str
) -> None:
    for seed, (counts, both) in enumerate(seeds):
        for arm, correct in zip(("scale-sft", "sft"), outcomes(*counts), strict=True):
            if both or arm == "scale-sft":
                write_run(tmp_path / f"{arm}/seed-{seed}", correct)
    sentence = leader_sentence(make_tables(load_runs(tmp_path)).leaders["world-test"])
    assert sentence.startswith("No arm leads: ")
    assert said in sentence


def test_the_best_arm_is_marked_only_where_it_beats_every_other(tmp_path: Path) -> None:
    for arm, right in (("sft", 30), ("a", 50), ("b", 52)):
        write_run(tmp_path / arm / "seed-0", [True] * right + [False] * (100 - right))
    leader = make_tables(load_runs(tmp_path)).leaders["world-test"]
    assert (leader.arm, leader.runner_up.base, leader.best) == ("b", "a", False)
    assert leader_sentence(leader).startswith(
        "No arm is significantly better than all others: b leads a by +2.0 points"
    )
    write_run(tmp_path / "b" / "seed-0", [True] * 50 + [False] * 50)
    leader = make_tables(load_runs(tmp_path)).leaders["world-test"]
    assert leader_sentence(leader) == "No arm leads: a and b have the same accuracy."
    write_run(tmp_path / "b" / "seed-0", [True] * 80 + [False] * 20)
    leader = make_tables(load_runs(tmp_path)).leaders["world-test"]
    assert leader.best
    assert leader_sentence(leader).startswith(
        "b is significantly better than every other arm: b leads a by +30.0 points"
    )
