"""Comparisons of two arms: what is paired, the tests, and when a difference is significant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from balanced_thinking.report.compare.contrasts import FEW_SEEDS, Contrast
from balanced_thinking.report.compare.pairing import Comparison, PairedAnswers, adjust_contrasts, make_contrasts
from balanced_thinking.report.compare.samples import choose_samples
from balanced_thinking.report.compare.tables import Tables, make_tables
from balanced_thinking.report.write.wording import explain_verdict_rule, verdict_evidence, verdict_headline
from balanced_thinking.runs.load import load_runs
from tests.report.helpers import compared, write_items
from tests.report.synthetic import outcomes, row, write_evaluation, write_run


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
        ({"dtype": "bfloat16"}, {"dtype": "float32"}, "dtype bfloat16 (sft, seed 0)"),
        ({"engine": "vllm"}, {"engine": "transformers"}, "engine vllm (sft, seed 0)"),
        ({"max_new_tokens": 160}, {}, ""),  # written before summaries said so
        ({"scorer": "exact"}, {"scorer": "exact", "prompt": "question", "engine": "vllm"}, ""),  # the prompt of then
    ],
)
def test_arms_are_compared_unless_both_recorded_another_protocol(
    tmp_path: Path, ours: dict[str, Any], theirs: dict[str, Any], note: str
) -> None:
    tables = differing(tmp_path, ours, theirs)
    assert bool(tables.contrasts) is not bool(note)
    notes = [
        found for found in tables.notes if "world-test: the runs do not have the same evaluation settings" in found
    ]
    assert [note in found for found in notes] == [True] * bool(note)


SMALL, LARGE = ({"size": {"longest_edge": pixels}, "patch_size": 14} for pixels in (50176, 1003520))


@pytest.mark.parametrize(
    ("ours", "theirs", "noted"),
    [
        (SMALL, LARGE, True),
        (SMALL, {**SMALL, "max_patches": 4}, True),
        (SMALL, {"patch_size": 14, "size": {"longest_edge": 50176}}, False),  # in another order
        (LARGE, LARGE, False),
        (LARGE, {}, False),  # of a server, which says nothing
        (None, LARGE, False),  # written before summaries said so
    ],
)
def test_another_picture_budget_is_noted_and_still_compared(
    tmp_path: Path, ours: dict[str, Any] | None, theirs: dict[str, Any], noted: bool
) -> None:
    said = [{} if budget is None else {"picture_budget": budget} for budget in (ours, theirs)]
    tables = differing(tmp_path, *said)
    assert tables.contrasts
    notes = [note for note in tables.notes if "did not see pictures of the same size" in note]
    assert len(notes) == noted
    if noted and theirs == LARGE:
        assert 'world-test: the runs did not see pictures of the same size: size {"longest_edge"' in notes[0]
        assert "50176} (sft, seed 0)" in notes[0]
        assert "patch_size" not in notes[0]


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
        "world-test: the runs do not have the same items: version 1 (scale-sft, seed 0); version 2, where 19 of 40 "
        "items have another question, answer, option or picture (sft, seed 0)" in note
        for note in tables.notes
    )
    samples = choose_samples(runs, tables.arms, tables.main_split, tmp_path)
    assert len(samples.items[0].replies) == 1


def test_fewer_items_of_the_same_version_are_still_compared(tmp_path: Path) -> None:
    write_items(tmp_path / "sft/seed-0", [f"item {i}" for i in range(40)])
    write_items(tmp_path / "scale-sft/seed-0", [f"item {i}" for i in range(30)])
    tables = make_tables(load_runs(tmp_path))
    assert [contrast.fewest_items for contrast in tables.contrasts] == [30]
    assert not any("same items" in note for note in tables.notes)


def test_comparisons_of_a_part_are_a_note_for_every_split(study: Path) -> None:
    write_run(study / "sft/seed-0", [True] * 40, split="world-longer")
    write_run(study / "scale-sft/seed-0", [True] * 30, split="world-longer")
    write_run(study / "sft/seed-0", [True] * 40, split="world-paraphrase")
    tables = make_tables(load_runs(study))
    assert tables.main_split == "world-test"
    assert "scale-sft, seed 0: compared with sft on the 30 items of world-longer that both answered" in tables.notes
    assert "scale-sft: not compared with sft on world-paraphrase: no seed has comparable predictions of both" in (
        tables.notes
    )


def test_only_shared_seeds_and_shared_items_are_compared(study: Path) -> None:
    write_run(study / "scale-sft/seed-7", [True] * 100)
    write_run(study / "scale-sft/seed-0", [True] * 50)
    tables = make_tables(load_runs(study))
    (contrast,) = tables.contrasts
    assert [(seed.seed, seed.item_count) for seed in contrast.seeds] == [(0, 50)]
    assert any("50 items of world-test that both answered" in note for note in tables.notes)
    assert any("compared with sft on world-test without seed 7" in note for note in tables.notes)


def test_accuracies_have_the_difference_that_is_said_where_seeds_have_other_numbers_of_items(tmp_path: Path) -> None:
    for seed, counts in enumerate([(50, 50, 0, 0), (0, 0, 50, 950)]):
        for arm, correct in zip(("scale-sft", "sft"), outcomes(*counts), strict=True):
            write_run(tmp_path / f"{arm}/seed-{seed}", correct)
    tables = make_tables(load_runs(tmp_path))
    (contrast,) = tables.contrasts
    accuracies = {row.arm: row.accuracy for row in tables.splits["world-test"]}
    assert contrast.points == pytest.approx(22.5)
    assert contrast.arm_accuracy - contrast.baseline_accuracy == pytest.approx(0.225)
    assert accuracies == pytest.approx({"scale-sft": contrast.arm_accuracy, "sft": contrast.baseline_accuracy})
    assert "of 100 to 1,000 items" in verdict_evidence(contrast)


def test_ids_of_different_data_are_not_paired(study: Path) -> None:
    write_run(study / "scale-sft/seed-0", [True] * 100, data="other/world")
    write_run(study / "sft-more/seed-0", [True] * 100)
    runs = load_runs(study)
    tables = make_tables(runs)
    assert [contrast.arm for contrast in tables.contrasts] == ["sft-more"]
    assert any(
        "world-test: the runs do not have the same data: other/world (scale-sft" in note for note in tables.notes
    )
    samples = choose_samples(runs, tables.arms, tables.main_split, study)
    assert {reply.arm for reply in samples.items[0].replies} == {"sft", "sft-more"}


def test_two_bases_are_compared_once_however_many_seeds_others_have(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        write_run(tmp_path / f"tuned/seed-{seed}", [True] * 40, seed=seed)
    for arm, right in (("base", 10), ("instruct", 30)):
        write_evaluation(tmp_path / arm / "eval/world-test", [row(i, i < right) for i in range(40)])
    contrasts = {contrast.arm: contrast for contrast in make_tables(load_runs(tmp_path)).contrasts}
    assert {arm: (contrast.base, len(contrast.seeds)) for arm, contrast in contrasts.items()} == {
        "instruct": ("base", 1),
        "tuned": ("base", 3),
    }


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
    assert contrast.is_significant is shown
    assert len(contrast.seeds) == len(seeds)


def test_more_contrasts_ask_for_a_smaller_p(study: Path) -> None:
    write_run(study / "sft-grpo/seed-0", [True] * 40 + [False] * 60)
    assert [contrast.alpha for contrast in make_tables(load_runs(study)).contrasts] == [0.025, 0.025]


def test_p_is_adjusted_over_the_contrasts_of_a_split(study: Path) -> None:
    write_run(study / "sft-grpo/seed-0", [True] * 40 + [False] * 60)
    first, second = make_tables(load_runs(study)).contrasts
    assert [first.p, second.p] == pytest.approx([0.01171875] * 2)
    assert [first.p_holm, second.p_holm] == pytest.approx([2 * 0.01171875] * 2)
    assert "adjusted by Holm over 2 contrasts" in explain_verdict_rule((first, second))


def test_from_five_seeds_on_the_bootstrap_decides_though_no_seed_is_significant_alone(tmp_path: Path) -> None:
    contrast = compared(tmp_path, [(7, 2), (8, 3), (6, 2), (7, 1), (8, 2)])
    assert len(contrast.seeds) == FEW_SEEDS
    assert contrast.significant_seed_count < FEW_SEEDS / 2
    assert contrast.is_significant
    assert contrast.interval[0] > 0
    assert contrast.detectable_points == pytest.approx(2.8016 * (contrast.spread or 0), rel=1e-3)


def test_from_five_seeds_on_one_may_point_the_other_way(tmp_path: Path) -> None:
    contrast = compared(tmp_path, [(12, 0), (9, 1), (10, 0), (11, 2), (1, 2), (10, 0)])
    assert not contrast.seeds_agree
    assert contrast.is_significant
    assert "is better than" in verdict_headline(contrast)


def test_the_pooled_interval_is_the_same_every_time(tmp_path: Path) -> None:
    contrast = compared(tmp_path, [(10, 1), (9, 2), (12, 1)])
    (again,) = make_tables(load_runs(tmp_path)).contrasts
    assert (again.interval, again.p) == (contrast.interval, contrast.p)
    assert "over 3 seeds" in verdict_evidence(contrast)


def contrast_of(seeds: list[tuple[int, int, int, int]]) -> Contrast:
    """The contrast of these paired counts, seed by seed, with a margin of one point."""
    answers = []
    for seed, counts in enumerate(seeds):
        sides = ({str(i): yes for i, yes in enumerate(side)} for side in outcomes(*counts))
        answers.append(PairedAnswers(seed, *sides))
    (contrast,) = adjust_contrasts(make_contrasts([Comparison("scale-sft", "sft", "test", answers, 1.0)]))
    return contrast


@pytest.mark.parametrize(
    ("items", "seeds", "significant"),
    [
        (400, 3, True),  # such as outputs that are all malformed, and none of the other arm
        (3, 5, False),  # five seeds do not make three items many
    ],
)
def test_a_difference_on_all_items_is_as_certain_as_they_are_many(items: int, seeds: int, significant: bool) -> None:
    contrast = contrast_of([(0, items, 0, 0)] * seeds)
    assert contrast.is_significant is significant
    assert contrast.interval == pytest.approx(contrast.seeds[0].interval)
    assert contrast.detectable_points != 0


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_one_disagreement_does_not_show_more_than_none(seeds: int) -> None:
    for first in [(20, 1, 0, 29), (20, 0, 1, 29), (20, 1, 1, 28)]:
        contrast = contrast_of([first, *[(20, 0, 0, 30)] * (seeds - 1)])
        assert contrast.tost is not None
        assert not contrast.tost.non_inferior  # 50 items, a margin of one point
        assert not contrast.tost.equivalent
        assert contrast.interval.low < -1 < 1 < contrast.interval.high


def test_no_difference_has_an_interval_beyond_a_hundred_points() -> None:
    assert contrast_of([(0, 40, 0, 0), (0, 0, 40, 0), (0, 40, 0, 0)]).interval == (-100, 100)
