"""Statistics of accuracies: intervals, paired tests and the smallest detectable effect. Pure Python, no SciPy.

Proportions and differences are shares from 0 to 1 (or -1 to 1), not percentage points.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import copysign, inf, sqrt
from statistics import NormalDist
from typing import NamedTuple


class Interval(NamedTuple):
    """The ends of a confidence interval."""

    low: float
    high: float


class PairedCounts(NamedTuple):
    """How many items both systems got right, only a, only b, and neither."""

    both: int
    only_a: int
    only_b: int
    neither: int


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Interval of a proportion (Wilson 1927, JASA 22:209-212).

    Raises ValueError without items, or where `successes` is not among 0 to n.
    """
    check_item_count(n)
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes in {n} items; expected 0 to {n}")
    z = _two_sided_quantile(confidence)
    share, spread = successes / n, z * z / n
    center = (share + spread / 2) / (1 + spread)
    half = z * sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    # Exact at the ends, where rounding would leave 1e-18.
    low = max(0.0, center - half) if successes else 0.0
    return Interval(low, min(1.0, center + half) if successes < n else 1.0)


def paired_counts(a_correct: Mapping[str, bool], b_correct: Mapping[str, bool]) -> PairedCounts:
    """The paired counts of two systems, from item id -> right or wrong.

    Raises ValueError without items, or where an id is on one side only.
    """
    check_same_keys("ids", a_correct, b_correct)
    check_item_count(len(a_correct))
    outcomes = [(bool(a_correct[key]), bool(b_correct[key])) for key in a_correct]
    both, only_a = outcomes.count((True, True)), outcomes.count((True, False))
    return PairedCounts(both, only_a, outcomes.count((False, True)), outcomes.count((False, False)))


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided p of McNemar's exact test: are b and c items, right in one system only, equally likely?

    The smaller binomial tail, doubled and clipped at 1, from integers (no overflow at any size). Without discordant
    items it is 1. Raises ValueError for negative counts.
    """
    if b < 0 or c < 0:
        raise ValueError(f"counts of discordant items are {b} and {c}; expected 0 or more")
    n = b + c
    term = tail = 1  # binomial coefficients, from n choose 0
    for k in range(min(b, c)):
        term = term * (n - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / 2**n)


def holm_adjusted(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values, in the input's order (1979, Scandinavian Journal of Statistics 6:65-70).

    Rejecting those of at most alpha keeps the chance of any false rejection at most alpha. The tests may depend on each
    other in any way. Raises ValueError for a p-value that is not among 0 to 1.
    """
    if wrong := [p for p in p_values if not 0 <= p <= 1]:
        raise ValueError(f"p-values include {wrong[0]}; expected shares from 0 to 1")
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def paired_difference_interval(
    both: float, only_a: float, only_b: float, neither: float, confidence: float = 0.95
) -> Interval:
    """Interval of accuracy a minus accuracy b on the same items: `paired_difference_interval(*paired_counts(a, b))`.

    Tango's score interval (1998, Statistics in Medicine 17:891-908). It excludes 0 exactly where McNemar's asymptotic
    test rejects, and has a width even where all items agree. Counts may be means over seeds. Raises ValueError without
    items or for negative counts.
    """
    n = _sum_checked_counts(both, only_a, only_b, neither)
    estimate, z = (only_a - only_b) / n, _two_sided_quantile(confidence)

    def find_limit(end: float) -> float:
        """Where the score test begins to reject, between the estimate and this end of the scale, by bisection."""
        kept, rejected = estimate, end
        if _is_within_interval(end, only_a, only_b, n, z):
            return end
        while (middle := (kept + rejected) / 2) not in (kept, rejected):
            kept, rejected = (middle, rejected) if _is_within_interval(middle, only_a, only_b, n, z) else (kept, middle)
        return kept

    return Interval(find_limit(-1.0), find_limit(1.0))


@dataclass(frozen=True)
class Tost:
    """Two one-sided tests (TOST) of "a is as good as b" within a margin that was fixed before the data were seen.

    The margin is a share (0.02 is two points). Raises ValueError where it is not from 0 to below 1, or alpha is not
    between 0 and 0.5.
    """

    margin: float
    alpha: float
    p_non_inferior: float  # of the hypothesis that a - b is -margin or less
    p_non_superior: float  # of the hypothesis that a - b is margin or more

    def __post_init__(self) -> None:
        if not 0 <= self.margin < 1:
            raise ValueError(
                f"margin is {self.margin}; expected a share from 0 to below 1, such as 0.02 for two percentage points"
            )
        if not 0 < self.alpha < 0.5:
            raise ValueError(f"alpha is {self.alpha}; expected a share above 0 and below 0.5, such as 0.05")

    @property
    def p(self) -> float:
        """Of the hypothesis that the accuracies differ by the margin or more, in either direction."""
        return max(self.p_non_inferior, self.p_non_superior)

    @property
    def non_inferior(self) -> bool:
        return self.p_non_inferior <= self.alpha

    @property
    def equivalent(self) -> bool:
        return self.p <= self.alpha


def tost_paired(both: float, only_a: float, only_b: float, neither: float, margin: float, alpha: float = 0.05) -> Tost:
    """Is a as good as b within `margin` on the same items? `tost_paired(*paired_counts(a, b), margin=0.02)`.

    Schuirmann's two tests (1987, Journal of Pharmacokinetics and Biopharmaceutics 15:657-680), each with Tango's score:
    equivalent where `paired_difference_interval` with confidence 1 - 2 alpha is inside the margins. Raises ValueError
    without items, for negative counts, or for a wrong margin or alpha.
    """
    n, cdf = _sum_checked_counts(both, only_a, only_b, neither), NormalDist().cdf
    p_non_inferior, p_non_superior = (
        cdf(-_tango_statistic(-margin, only_a, only_b, n)),
        cdf(_tango_statistic(margin, only_a, only_b, n)),
    )
    return Tost(margin, alpha, p_non_inferior, p_non_superior)


def _is_within_interval(difference: float, only_a: float, only_b: float, n: float, z: float) -> bool:
    return abs(_tango_statistic(difference, only_a, only_b, n)) <= z


def _tango_statistic(difference: float, only_a: float, only_b: float, n: float) -> float:
    """Tango's score of one difference, with the constrained maximum likelihood of P(only b) in its variance."""
    linear = -only_a - only_b + (2 * n - only_a + only_b) * difference
    constant = -only_b * difference * (1 - difference)
    only_b_share = (sqrt(max(0.0, linear * linear - 8 * n * constant)) - linear) / (4 * n)
    variance = n * (2 * only_b_share + difference * (1 - difference))
    excess = only_a - only_b - n * difference
    if variance <= 0:  # this difference allows a single outcome: ours, or the difference is refuted
        return copysign(inf, excess) if excess else 0.0
    return excess / sqrt(variance)


def minimum_detectable_effect(n: int, discordant: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true difference of two accuracies that a two-sided McNemar test on n items detects with this power.

    `discordant` is the share of items that only one system gets right. Normal approximation with the variance under no
    difference (Connor 1987, Biometrics 43:207-211, to first order). A difference cannot exceed `discordant`: a result
    above it means that n items with such agreement detect no difference at all.

    Raises ValueError without items or for a wrong share.
    """
    check_item_count(n)
    if not 0 < discordant <= 1:
        raise ValueError(
            f"discordant is {discordant}; expected the share of items that only one system gets right, above 0 and at "
            "most 1"
        )
    if not (0 < power < 1 and 0 < alpha < 1):
        raise ValueError(f"power is {power} and alpha {alpha}; expected shares such as 0.8 and 0.05")
    return (_two_sided_quantile(1 - alpha) + NormalDist().inv_cdf(power)) * sqrt(discordant / n)


def check_item_count(n: float) -> None:
    """Raises ValueError without items."""
    if n <= 0:
        raise ValueError(
            f"there are {n} items; statistics need at least one (is the split empty, or everything dropped?)"
        )


def check_same_keys(what: str, a: Collection[str | int], b: Collection[str | int]) -> None:
    """Raises ValueError, with some of the names, where a name is on one side only."""
    unpaired = sorted(map(str, set(a) ^ set(b)))
    if unpaired:
        shown = ", ".join(unpaired[:3]) + ", ..." * (len(unpaired) > 3)
        raise ValueError(
            f"{len(unpaired)} {what} are in only one of the two results ({shown}); expected the same {what} in both: "
            "compare results of the same data and seeds"
        )


def check_confidence(confidence: float) -> None:
    """Raises ValueError where it is not between 0 and 1."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a share such as 0.95")


def _two_sided_quantile(confidence: float) -> float:
    check_confidence(confidence)
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _sum_checked_counts(*counts: float) -> float:
    if min(counts) < 0:
        raise ValueError(f"counts are {counts}; expected 0 or more")
    check_item_count(sum(counts))
    return sum(counts)
