"""Statistics against SciPy, statsmodels, published examples and the slow definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binom, binomtest, norm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from balanced_thinking.statistics.intervals import (
    Tost,
    holm_adjusted,
    mcnemar_exact,
    minimum_detectable_effect,
    paired_counts,
    paired_difference_interval,
    tost_paired,
    wilson_interval,
)

TABLES = st.tuples(*[st.integers(0, 60)] * 4).filter(any)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 12), (12, 12), (3, 10), (1, 400), (1506, 2017)])
def test_wilson_equals_statsmodels(successes: int, n: int, confidence: float) -> None:
    expected = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    assert wilson_interval(successes, n, confidence) == pytest.approx(expected, abs=1e-12)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_stays_among_zero_and_one(case: tuple[int, int]) -> None:
    low, high = wilson_interval(*case)
    assert 0 <= low <= case[0] / case[1] <= high <= 1
    assert low < high


def test_wilson_is_exactly_zero_and_one_at_the_ends() -> None:
    assert wilson_interval(0, 7)[0] == 0.0
    assert wilson_interval(7, 7)[1] == 1.0


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 1), (1, 0), (5, 5), (2, 9), (9, 2), (0, 30), (31, 52), (600, 500)])
def test_exact_mcnemar_equals_scipy_and_statsmodels(b: int, c: int) -> None:
    expected = binomtest(min(b, c), b + c, 0.5).pvalue if b + c else 1.0
    assert mcnemar_exact(b, c) == pytest.approx(expected, rel=1e-9)
    if b + c:
        assert mcnemar_exact(b, c) == pytest.approx(mcnemar([[3, b], [c, 4]], exact=True).pvalue, rel=1e-9)


@given(st.integers(0, 25), st.integers(0, 25))
def test_exact_mcnemar_equals_the_sum_over_all_outcomes(b: int, c: int) -> None:
    """Slow definition: the probability of each outcome at least as far from the middle."""
    n = b + c
    far = sum(math.comb(n, k) for k in range(n + 1) if abs(2 * k - n) >= abs(b - c))
    assert mcnemar_exact(b, c) == pytest.approx(far / 2**n)
    assert mcnemar_exact(b, c) == mcnemar_exact(c, b)


def test_exact_mcnemar_neither_overflows_nor_drags_on_large_counts() -> None:
    assert mcnemar_exact(10_100, 9_900) == pytest.approx(binomtest(9_900, 20_000, 0.5).pvalue, rel=1e-8)
    assert mcnemar_exact(0, 5_000) == 0.0  # 2 ** -4999 is below the smallest float


# Ordered, reversed, with ties, with ends, and where the running maximum and the clip at 1 decide.
FAMILIES = [
    [0.001, 0.01, 0.03],
    [0.03, 0.01, 0.001],
    [0.04, 0.01, 0.04, 0.01],
    [0.0, 1.0, 0.5],
    [0.02, 0.011, 0.9, 0.012, 0.3],
    [0.2, 0.7, 0.4, 0.35],
]


@pytest.mark.parametrize("p_values", FAMILIES)
def test_holm_equals_statsmodels_in_the_order_given(p_values: list[float]) -> None:
    assert holm_adjusted(p_values) == pytest.approx(multipletests(p_values, method="holm")[1], abs=1e-12)


def test_holm_leaves_one_test_as_it_is_and_ties_equal() -> None:
    assert holm_adjusted([]) == []
    assert holm_adjusted([0.03]) == [0.03]
    assert holm_adjusted([0.02, 0.5, 0.02]) == pytest.approx([0.06, 0.5, 0.06])


def test_paired_counts_name_the_four_outcomes_by_id() -> None:
    a = {"w": True, "x": True, "y": False, "z": False, "v": True}
    b = {"z": False, "y": True, "x": False, "w": True, "v": False}
    assert paired_counts(a, b) == (1, 2, 1, 1)


def test_paired_counts_refuse_different_items_and_none() -> None:
    with pytest.raises(ValueError, match=r"2 ids are in only one of the two results \(b, c\)"):
        paired_counts({"a": True, "b": True}, {"a": True, "c": True})
    with pytest.raises(ValueError, match="0 items"):
        paired_counts({}, {})


# Counts in the order of `paired_counts`, confidence, limits computed elsewhere with R.
TANGO = [
    ((59, 6, 16, 80), 0.95, -0.1240, -0.0054),  # package contingencytables, data of Cavo et al. 2012
    ((1, 1, 7, 12), 0.95, -0.517, -0.026),  # package ratesci, data of Bentur et al. 2009
    ((565, 28, 25, 0), 0.90, -0.0148, 0.0247),  # package PropCIs, scoreci.mp(25, 28, 618)
]


@pytest.mark.parametrize(("counts", "confidence", "low", "high"), TANGO)
def test_paired_interval_equals_published_values(
    counts: tuple[int, int, int, int], confidence: float, low: float, high: float
) -> None:
    digits = 5e-4 if counts[0] == 1 else 5e-5
    assert paired_difference_interval(*counts, confidence) == pytest.approx((low, high), abs=digits)


def score(difference: float, b: int, c: int, n: int) -> float:
    """Tango's statistic by its definition: the nuisance parameter from a search for the maximum likelihood."""

    def loss(q: float) -> float:
        cells = ((b, q + difference), (c, q), (n - b - c, 1 - 2 * q - difference))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in cells if count)

    low, high = max(0.0, -difference), (1 - difference) / 2
    q = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return (b - c - n * difference) / math.sqrt(n * (2 * q + difference - difference**2))


@pytest.mark.parametrize(("b", "c", "n"), [(6, 16, 161), (1, 7, 21), (40, 20, 160), (3, 2, 9), (90, 5, 100)])
def test_paired_interval_ends_where_the_score_test_begins_to_reject(b: int, c: int, n: int) -> None:
    low, high = paired_difference_interval(n - b - c, b, c, 0)
    z = norm.ppf(0.975)
    assert (score(low, b, c, n), score(high, b, c, n)) == pytest.approx((z, -z), abs=1e-4)


@given(TABLES)
@settings(deadline=None)
def test_paired_interval_holds_the_difference_and_turns_with_the_sides(table: tuple[int, int, int, int]) -> None:
    both, a, b, neither = table
    low, high = paired_difference_interval(*table)
    assert -1 <= low <= (a - b) / sum(table) <= high <= 1
    assert low < high
    assert paired_difference_interval(neither, b, a, both) == pytest.approx((-high, -low), abs=1e-9)


@given(TABLES)
@settings(deadline=None)
def test_paired_interval_leaves_out_zero_exactly_where_asymptotic_mcnemar_rejects(
    table: tuple[int, int, int, int],
) -> None:
    both, a, b, neither = table
    low, high = paired_difference_interval(*table)
    p = mcnemar([[both, a], [b, neither]], exact=False, correction=False).pvalue if a + b else 1.0
    assert (low > 0 or high < 0) == (p < 0.05)


def test_paired_interval_reaches_the_end_of_the_scale_when_one_side_is_always_right() -> None:
    assert paired_difference_interval(0, 8, 0, 0)[1] == 1.0
    assert paired_difference_interval(0, 0, 8, 0)[0] == -1.0


@pytest.mark.parametrize(("b", "c", "n"), [(6, 16, 161), (1, 7, 21), (40, 20, 160), (3, 2, 9), (90, 5, 100)])
@pytest.mark.parametrize("margin", [0.02, 0.1])
def test_equivalence_equals_the_score_test_by_its_definition(b: int, c: int, n: int, margin: float) -> None:
    result = tost_paired(n - b - c, b, c, 0, margin)
    expected = norm.sf(score(-margin, b, c, n)), norm.cdf(score(margin, b, c, n))
    assert (result.p_non_inferior, result.p_non_superior) == pytest.approx(expected, abs=1e-5)
    assert result.p == max(result.p_non_inferior, result.p_non_superior)


@given(TABLES, st.just(0.0) | st.floats(1e-9, 0.5))
@settings(deadline=None)
def test_equivalence_agrees_with_the_interval_of_twice_alpha(table: tuple[int, int, int, int], margin: float) -> None:
    low, high = paired_difference_interval(*table, 0.9)
    result = tost_paired(*table, margin)
    if min(abs(low + margin), abs(high - margin)) > 1e-9:
        assert result.non_inferior == (low > -margin)
        assert result.equivalent == (-margin < low and high < margin)


@given(TABLES)
@settings(deadline=None)
def test_a_larger_margin_never_turns_non_inferior_into_inferior(table: tuple[int, int, int, int]) -> None:
    results = [tost_paired(*table, margin) for margin in np.linspace(0, 0.99, 12)]
    assert [r.non_inferior for r in results] == sorted(r.non_inferior for r in results)
    assert [r.equivalent for r in results] == sorted(r.equivalent for r in results)
    assert not results[0].equivalent  # nothing is within a margin of 0


@given(TABLES, st.floats(0, 0.99))
def test_equivalence_turns_with_the_sides(table: tuple[int, int, int, int], margin: float) -> None:
    both, a, b, neither = table
    there, back = tost_paired(both, a, b, neither, margin), tost_paired(neither, b, a, both, margin)
    assert (back.p_non_superior, back.p_non_inferior) == pytest.approx(
        (there.p_non_inferior, there.p_non_superior), abs=1e-9
    )


def test_agreement_on_few_items_shows_no_equivalence() -> None:
    assert not tost_paired(10, 0, 0, 10, margin=0.02).equivalent
    assert tost_paired(1000, 0, 0, 1000, margin=0.02).equivalent


# Items, discordance, smallest difference in points: measured before the project began.
DETECTABLE = [
    (2017, 0.1, 2.0),  # ScienceQA's items with an image
    (2017, 0.2, 2.8),
    (4241, 0.1, 1.4),  # ScienceQA's whole test split
    (4241, 0.2, 1.9),
    (21489, 0.1, 0.6),  # IconQA
    (21489, 0.2, 0.85),
    (167, 0.1, 6.9),
    (167, 0.2, 9.7),
]


@pytest.mark.parametrize(("n", "discordant", "points"), DETECTABLE)
def test_minimum_detectable_effect_gives_the_known_figures(n: int, discordant: float, points: float) -> None:
    digits = 2 if points == 0.85 else 1
    assert round(100 * minimum_detectable_effect(n, discordant), digits) == points


def exact_power(n: int, discordant: float, effect: float) -> float:
    """The test's rejections weighted by the probability of every (discordant, only a) outcome."""
    share = (1 + effect / discordant) / 2
    power = 0.0
    for m in range(*(int(x) for x in binom.ppf([1e-6, 1 - 1e-6], n, discordant))):
        rejected_up_to = binom.ppf(0.025, m, 0.5) - 1  # the largest k with P(X <= k) below alpha / 2
        k = int(rejected_up_to)
        rejected = binom.cdf(k, m, share) + binom.sf(m - k - 1, m, share)
        power += binom.pmf(m, n, discordant) * rejected
    return power


@pytest.mark.parametrize(("n", "discordant"), [(2017, 0.1), (2017, 0.2), (500, 0.3)])
def test_the_exact_test_has_about_the_promised_power(n: int, discordant: float) -> None:
    assert exact_power(n, discordant, minimum_detectable_effect(n, discordant)) == pytest.approx(0.8, abs=0.04)


def test_more_items_agreement_and_tolerance_show_smaller_effects() -> None:
    base = minimum_detectable_effect(1000, 0.2)
    assert minimum_detectable_effect(4000, 0.2) == pytest.approx(base / 2)
    assert minimum_detectable_effect(1000, 0.05) == pytest.approx(base / 2)
    assert minimum_detectable_effect(1000, 0.2, power=0.5) < base < minimum_detectable_effect(1000, 0.2, alpha=0.01)


REFUSED = [
    (lambda: wilson_interval(0, 0), "there are 0 items"),  # an empty split
    (lambda: wilson_interval(3, 2), "3 successes in 2 items"),  # counts swapped
    (lambda: wilson_interval(1, 2, 95), "confidence is 95"),  # per cent for a share
    (lambda: mcnemar_exact(-1, 2), "-1 and 2"),  # not a count
    (lambda: paired_difference_interval(0, 0, 0, 0), "there are 0 items"),  # nothing in common
    (lambda: paired_difference_interval(5, -1, 0, 0), "counts are"),  # not a count
    (lambda: minimum_detectable_effect(0, 0.1), "there are 0 items"),  # an empty split
    (lambda: minimum_detectable_effect(10, 0.0), "discordant is 0.0"),  # systems that never differ
    (lambda: minimum_detectable_effect(10, 20), "discordant is 20"),  # per cent for a share
    (lambda: minimum_detectable_effect(10, 0.2, power=80), "power is 80"),  # per cent for a share
    (lambda: holm_adjusted([0.2, math.nan]), "p-values include nan"),  # a test that was never run
    (lambda: holm_adjusted([0.2, 1.5]), "p-values include 1.5"),  # not a probability
    (lambda: tost_paired(0, 0, 0, 0, 0.02), "there are 0 items"),  # nothing in common
    (lambda: tost_paired(5, -1, 0, 0, 0.02), "counts are"),  # not a count
    (lambda: tost_paired(5, 1, 0, 0, 2), "margin is 2"),  # points for a share
    (lambda: tost_paired(5, 1, 0, 0, -0.02), "margin is -0.02"),  # a margin is a distance
    (lambda: Tost(0.02, 0.95, 0.1, 0.1), "alpha is 0.95"),  # confidence for alpha
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_nonsense_is_refused_with_what_was_found(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_wilson_covers_the_truth_about_as_often_as_it_says() -> None:
    n, share = 60, 0.9
    inside = [k for k in range(n + 1) if wilson_interval(k, n)[0] <= share <= wilson_interval(k, n)[1]]
    assert np.sum(binom.pmf(inside, n, share)) == pytest.approx(0.95, abs=0.02)
