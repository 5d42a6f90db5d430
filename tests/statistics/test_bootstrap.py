"""The paired bootstrap against every resample of small tables, exact variances and the truth in simulations."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balanced_thinking.statistics.bootstrap import PairedOutcomes, paired_bootstrap, paired_bootstraps

Arm = dict[int, dict[str, bool]]

# Differences by seed and question: 1 only a is right, -1 only b, 0 both or neither.
CROSSED = [[1, 0, -1], [1, 1, 0]]
NESTED = [[1, -1], [1, 1, 0]]


def arms(rows: list[list[int]]) -> tuple[Arm, Arm]:
    """Both right where the difference is 0. Rows of unequal lengths make the design nested."""
    a = {seed: {f"q{i}": d >= 0 for i, d in enumerate(row)} for seed, row in enumerate(rows)}
    b = {seed: {f"q{i}": d <= 0 for i, d in enumerate(row)} for seed, row in enumerate(rows)}
    return a, b


def random_arms(seeds: int, questions: int, share_a: float, share_b: float) -> tuple[Arm, Arm]:
    rng = np.random.default_rng(3)

    def arm(share: float) -> Arm:
        right = (rng.random((seeds, questions)) < share).tolist()
        return {seed: {f"q{i}": x for i, x in enumerate(row)} for seed, row in enumerate(right)}

    return arm(share_a), arm(share_b)


def every_crossed_resample(rows: list[list[int]]) -> Iterator[tuple[Fraction, Fraction]]:
    """(difference, probability) by the definition: all drawn seeds answer the same drawn questions."""
    seeds, questions = range(len(rows)), range(len(rows[0]))
    chance = Fraction(1, len(seeds) ** len(seeds) * len(questions) ** len(questions))
    for drawn in product(seeds, repeat=len(seeds)):
        for drawn_questions in product(questions, repeat=len(questions)):
            total = sum(rows[seed][question] for seed in drawn for question in drawn_questions)
            yield Fraction(total, len(seeds) * len(questions)), chance


def every_nested_resample(rows: list[list[int]]) -> Iterator[tuple[Fraction, Fraction]]:
    """(difference, probability) by the definition: every drawn seed draws questions of its own."""
    one = [
        (Fraction(sum(drawn_questions), len(row)), Fraction(1, len(rows) * len(row) ** len(row)))
        for row in rows
        for drawn_questions in product(row, repeat=len(row))
    ]
    for drawn in product(one, repeat=len(rows)):
        yield sum(x for x, _ in drawn) / len(rows), np.prod([chance for _, chance in drawn])


@pytest.mark.parametrize(("rows", "every"), [(CROSSED, every_crossed_resample), (NESTED, every_nested_resample)])
def test_draws_follow_the_distribution_over_every_resample(rows, every) -> None:
    expected: Counter = Counter()
    for value, chance in every(rows):
        expected[round(float(value), 9)] += chance
    result = paired_bootstrap(*arms(rows), resamples=20_000)
    found = Counter(round(x, 9) for x in result.draws)
    assert found.keys() <= expected.keys()
    for value, chance in expected.items():  # within 4 standard errors of the share
        assert found[value] / 20_000 == pytest.approx(float(chance), abs=4 * float(chance / 20_000) ** 0.5)


def test_interval_and_p_are_quantiles_and_tails_of_the_draws() -> None:
    result = paired_bootstrap(*random_arms(3, 40, 0.7, 0.6), resamples=999, confidence=0.9)
    assert list(result.draws) == sorted(result.draws)
    assert (result.low, result.high) == pytest.approx(np.quantile(result.draws, [0.05, 0.95]))
    tails = sum(x <= 0 for x in result.draws), sum(x >= 0 for x in result.draws)
    assert result.p_two_sided == 2 * (1 + min(tails)) / 1000


@pytest.mark.parametrize("seeds", [1, 4])
def test_crossed_variance_is_that_of_seeds_questions_and_their_interaction(seeds: int) -> None:
    """Counts of seeds and of questions are independent multinomials, which gives the variance in closed form."""
    a, b = random_arms(seeds, 50, 0.8, 0.6)
    rows = np.array([[int(a[s][q]) - int(b[s][q]) for q in a[s]] for s in a])
    by_seed, by_question = rows.sum(1), rows.sum(0)
    rest = rows - rows.mean(1, keepdims=True) - rows.mean(0) + rows.mean()
    expected = (seeds * by_seed.var() + 50 * by_question.var() + (rest**2).sum()) / rows.size**2
    # A variance from 10,000 draws has a relative standard error of about sqrt(2 / 10,000) = 1.4 %.
    assert np.var(paired_bootstrap(a, b).draws) == pytest.approx(expected, rel=0.06)


def test_nested_variance_is_that_between_seeds_plus_that_within() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.integers(-1, 2, size=n).tolist() for n in (20, 35, 50)]
    means, within = [np.mean(row) for row in rows], [np.var(row) / len(row) for row in rows]
    expected = (np.var(means) + np.mean(within)) / 3
    assert np.var(paired_bootstrap(*arms(rows)).draws) == pytest.approx(expected, rel=0.06)


def covers(rows: np.ndarray, truth: float) -> bool:
    result = paired_bootstrap(*arms(rows.tolist()), resamples=400)
    return result.low <= truth <= result.high


def test_with_one_seed_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """300 studies give a standard error of 1.3 %; 400 resamples and 150 questions cost about 1 %."""
    rng = np.random.default_rng(1)
    hits = [covers(rng.choice([-1, 0, 1], p=[0.1, 0.6, 0.3], size=(1, 150)), 0.2) for _ in range(300)]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.05)


def test_with_five_seeds_that_differ_the_interval_covers_about_as_seldom_as_documented() -> None:
    """Each seed shifts all its answers, so that seeds dominate: 83 %, and 300 studies have an error of 2.2 %."""
    rng = np.random.default_rng(1)
    hits = []
    for _ in range(300):
        wins = np.clip(0.5 + rng.normal(0, 0.15, size=(5, 1)), 0, 1)
        hits.append(covers(np.where(rng.random((5, 200)) < wins, 1, -1), 0.0))
    assert np.mean(hits) == pytest.approx(0.83, abs=0.07)


def test_widened_draws_show_the_whole_variance_between_seeds() -> None:
    """All answers of a seed are the same: the mean of S seeds has the variance of one, without bias, divided by S."""
    rows = [[1] * 50, [-1] * 50, [1] * 50]
    found = paired_bootstrap(*arms(rows))
    wide = found.widened_for_seeds()
    assert np.var(wide.draws) == pytest.approx(np.var([1, -1, 1], ddof=1) / 3, rel=0.06)
    assert (wide.difference, wide.resamples, wide.seeds) == (found.difference, found.resamples, found.seeds)
    assert list(wide.draws) == sorted(wide.draws)
    assert (wide.low, wide.high) == pytest.approx(np.quantile(wide.draws, [0.025, 0.975]))
    assert wide.p_two_sided >= found.p_two_sided


def test_one_seed_shows_nothing_to_widen() -> None:
    found = paired_bootstrap(*random_arms(1, 30, 0.7, 0.5), resamples=50)
    assert found.widened_for_seeds() == found


def test_seeds_that_differ_widen_the_interval_and_one_seed_shows_none_of_it() -> None:
    steady, apart = [[1, -1] * 50] * 4, [[1] * 100, [-1] * 100] * 2
    narrow, wide = paired_bootstrap(*arms(steady)), paired_bootstrap(*arms(apart))
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)
    alone = paired_bootstrap(*arms(apart[:1]))
    assert (alone.low, alone.high, alone.seeds) == (1.0, 1.0, 1)


ROWS = st.integers(1, 4).flatmap(
    lambda n: st.lists(st.lists(st.integers(-1, 1), min_size=n, max_size=n + 1), min_size=1, max_size=3)
)


@given(ROWS)
@settings(deadline=None, max_examples=40)
def test_swapping_the_arms_negates_the_difference_and_turns_the_interval(rows: list[list[int]]) -> None:
    a, b = arms(rows)
    there, back = paired_bootstrap(a, b, resamples=200), paired_bootstrap(b, a, resamples=200)
    assert (back.difference, back.low, back.high) == pytest.approx((-there.difference, -there.high, -there.low))
    assert back.p_two_sided == there.p_two_sided
    mirrored = back.tost(0.1)
    assert (mirrored.p_non_superior, mirrored.p_non_inferior) == (
        there.tost(0.1).p_non_inferior,
        there.tost(0.1).p_non_superior,
    )


@given(ROWS)
@settings(deadline=None, max_examples=40)
def test_failing_together_counts_as_much_as_being_right_together(rows: list[list[int]]) -> None:
    a, b = arms(rows)
    fail_a = {seed: {key: x and not b[seed][key] for key, x in row.items()} for seed, row in a.items()}
    fail_b = {seed: {key: x and not a[seed][key] for key, x in row.items()} for seed, row in b.items()}
    assert paired_bootstrap(fail_a, fail_b, resamples=100) == paired_bootstrap(a, b, resamples=100)


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_constant_difference_has_no_width(shift: int) -> None:
    result = paired_bootstrap(*arms([[shift] * 7] * 3), resamples=99)
    assert (result.low, result.difference, result.high) == (shift, shift, shift)
    assert result.p_two_sided == 2 / 100


@pytest.mark.parametrize("rows", [[[0] * 5] * 3, [[0] * 5, [0] * 6]])
def test_identical_arms_differ_by_zero_with_p_one(rows: list[list[int]]) -> None:
    result = paired_bootstrap(*arms(rows), resamples=99)
    assert (result.difference, result.low, result.high, result.p_two_sided) == (0, 0, 0, 1)


@pytest.mark.parametrize("rows", [CROSSED, NESTED])
def test_equal_arguments_give_equal_results_in_any_order_of_keys(rows: list[list[int]]) -> None:
    a, b = arms(rows)
    turned = {seed: dict(reversed(row.items())) for seed, row in reversed(a.items())}
    assert paired_bootstrap(turned, b, resamples=300, seed=4) == paired_bootstrap(a, b, resamples=300, seed=4)
    assert paired_bootstrap(a, b, resamples=300, seed=5).draws != paired_bootstrap(a, b, resamples=300, seed=4).draws


# Design, interval, p: measured once, the same on every machine.
PINNED = [
    (random_arms(3, 40, 0.7, 0.6), -0.05854166666666648, 0.30833333333333335, 0.23576423576423577),  # crossed
    (arms(NESTED), -0.5, 1.0, 0.5674325674325674),  # nested
]


@pytest.mark.parametrize(("design", "low", "high", "p"), PINNED)
def test_draws_are_the_same_on_every_machine(design: tuple[Arm, Arm], low: float, high: float, p: float) -> None:
    result = paired_bootstrap(*design, resamples=1000, seed=7)
    assert (result.low, result.high, result.p_two_sided) == (low, high, p)


def test_sizes_are_resamples_seeds_and_distinct_questions() -> None:
    crossed, nested = paired_bootstrap(*arms(CROSSED), resamples=10), paired_bootstrap(*arms(NESTED), resamples=10)
    assert (crossed.resamples, crossed.seeds, crossed.items) == (10, 2, 3)
    assert (nested.resamples, nested.seeds, nested.items) == (10, 2, 3)
    assert len(crossed.draws) == 10


def test_a_seeds_share_counts_alike_however_many_questions_it_has() -> None:
    assert paired_bootstrap(*arms([[1], [0, 0, 0]]), resamples=10).difference == 0.5


def test_a_study_of_five_seeds_and_1600_questions_fits_in_200_mib() -> None:
    a, b = random_arms(5, 1600, 0.7, 0.68)
    tracemalloc.start()
    paired_bootstrap(a, b)
    peak_mib = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    assert peak_mib < 200


def test_non_inferior_is_where_the_one_sided_bound_lies_above_the_margin() -> None:
    result = paired_bootstrap(*random_arms(3, 300, 0.7, 0.7))
    bound, top = np.quantile(result.draws, [0.05, 0.95])
    for margin in np.linspace(0, 0.2, 81):
        if abs(bound + margin) > 1e-3:  # draws are discrete: on the bound itself, quantile and count may differ
            assert result.tost(margin).non_inferior == (bound > -margin)
        if min(abs(bound + margin), abs(top - margin)) > 1e-3:
            assert result.tost(margin).equivalent == (-margin < bound and top < margin)


@given(ROWS)
@settings(deadline=None, max_examples=40)
def test_a_larger_margin_never_turns_non_inferior_into_inferior(rows: list[list[int]]) -> None:
    result = paired_bootstrap(*arms(rows), resamples=100)
    tests = [result.tost(margin) for margin in np.linspace(0, 0.99, 12)]
    assert [t.non_inferior for t in tests] == sorted(t.non_inferior for t in tests)
    assert [t.equivalent for t in tests] == sorted(t.equivalent for t in tests)
    assert not tests[0].equivalent  # nothing is within a margin of 0


ONE = {0: {"x": True}}
REFUSED = [
    (lambda: paired_bootstrap(ONE, {1: {"x": True}}), r"2 seeds are in only one .* \(0, 1\)"),  # other runs
    (lambda: paired_bootstrap(ONE, {0: {"y": True}}), r"2 ids of seed 0 are in only one .* \(x, y\)"),  # other split
    (lambda: paired_bootstrap({}, {}), "there are 0 items"),  # no run finished
    (lambda: paired_bootstrap({0: {}}, {0: {}}), "there are 0 items"),  # an empty split
    (lambda: paired_bootstraps([PairedOutcomes(ONE, ONE, {0: ()})]), "there are 0 items"),  # no question counts
    (lambda: paired_bootstrap(ONE, ONE, resamples=0), "resamples is 0"),  # nothing to take quantiles of
    (lambda: paired_bootstrap(ONE, ONE, confidence=95), "confidence is 95"),  # per cent for a share
    (lambda: paired_bootstrap(ONE, ONE, resamples=9).tost(2), "margin is 2"),  # points for a share
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_nonsense_is_refused_with_what_was_found(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_comparisons_together_get_the_draws_that_each_would_get_alone() -> None:
    pairs = [random_arms(3, 40, 0.7, 0.6), arms(NESTED), random_arms(3, 40, 0.4, 0.6), arms(CROSSED)]
    together = paired_bootstraps([PairedOutcomes(a, b) for a, b in pairs], resamples=200)
    assert together == [paired_bootstrap(a, b, resamples=200) for a, b in pairs]


COUNTED = [{"q0", "q2"}, {"q1"}]  # of the two seeds of CROSSED


def every_resample_of_counted_questions() -> Iterator[tuple[Fraction, Fraction]]:
    """By the definition: a drawn seed's difference is the mean over the drawn questions that count, 0 without any."""
    for drawn in product(range(2), repeat=2):
        for drawn_questions in product(range(3), repeat=3):
            rows = [[CROSSED[seed][q] for q in drawn_questions if f"q{q}" in COUNTED[seed]] for seed in drawn]
            yield sum(Fraction(sum(row), len(row)) if row else Fraction(0) for row in rows) / 2, Fraction(1, 4 * 27)


def test_where_only_some_questions_count_draws_follow_the_distribution_over_every_resample() -> None:
    expected: Counter = Counter()
    for value, chance in every_resample_of_counted_questions():
        expected[round(float(value), 9)] += chance
    (result,) = paired_bootstraps([PairedOutcomes(*arms(CROSSED), dict(enumerate(COUNTED)))], resamples=20_000)
    assert result.difference == 0.5  # seed 0: 1 and -1, seed 1: 1
    found = Counter(round(x, 9) for x in result.draws)
    assert found.keys() <= expected.keys()
    for value, chance in expected.items():  # within 4 standard errors of the share
        assert found[value] / 20_000 == pytest.approx(float(chance), abs=4 * float(chance / 20_000) ** 0.5)


def test_where_seeds_answer_different_questions_only_those_that_count_are_drawn() -> None:
    counted = {0: {"q0"}, 1: {"q0", "q2"}}
    (result,) = paired_bootstraps([PairedOutcomes(*arms(NESTED), counted)], resamples=300)
    assert result.draws == paired_bootstrap(*arms([[1], [1, 0]]), resamples=300).draws
