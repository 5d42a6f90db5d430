"""The comparison of two arms on the same items: tests, interval and verdict. `pairing` makes them from runs.

Points are percentage points, the arm minus its baseline: of accuracy, or of outputs that are malformed or truncated.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist, fmean

from balanced_thinking.statistics.intervals import (
    Interval,
    PairedCounts,
    Tost,
    mcnemar_exact,
    minimum_detectable_effect,
    paired_difference_interval,
)

ALPHA = 0.05
POWER = 0.8
# With fewer seeds than FEW_SEEDS, the bootstrap estimates the spread between seeds too poorly to decide alone. Then all
# seeds must point the same way, and MIN_SIGNIFICANT_SEEDS of them must be significant on their own. This is not a share
# of the seeds: three of four are harder to reach than two of three, so more seeds would lower the power.
FEW_SEEDS = 5
MIN_SIGNIFICANT_SEEDS = 2
# With fewer items in every seed whose outcome is not the most common one, a bootstrap is too sure.
FEW_UNUSUAL_ITEMS = 10
# A study that would often miss a true difference of this many points has too little power.
DETECTABLE_POINTS = 3.0


@dataclass(frozen=True)
class SeedContrast:
    """Two arms on the same items with one seed: on how many items both, one or neither of them is right (or malformed,
    or truncated)."""

    seed: int | None
    both: int
    only_arm: int
    only_base: int
    neither: int

    @property
    def counts(self) -> PairedCounts:
        """The arm is a, its baseline b."""
        return PairedCounts(self.both, self.only_arm, self.only_base, self.neither)

    @property
    def item_count(self) -> int:
        return sum(self.counts)

    @property
    def unusual_items(self) -> int:
        """Items without the most common outcome: of agreement, only the arm, and only its baseline."""
        return self.item_count - max(self.both + self.neither, self.only_arm, self.only_base)

    @property
    def points(self) -> float:
        return 100 * (self.only_arm - self.only_base) / self.item_count

    @property
    def interval(self) -> Interval:
        """The 95 % interval of `points`."""
        low, high = paired_difference_interval(*self.counts)
        return Interval(100 * low, 100 * high)

    @property
    def p(self) -> float:
        return mcnemar_exact(self.only_arm, self.only_base)


@dataclass(frozen=True)
class Contrast:
    """One arm against another on `split`.

    `interval` (95 %), `p` and `tost` are over all seeds, from a bootstrap; `pairing` makes them more cautious where few
    items differ from the rest. With one seed, or without any disagreement, they are from one seed's counts. `p_holm` is
    `p` adjusted over the contrasts of the split. `alpha` is the level of the tests of single seeds. `spread` is the
    standard error in points, None without a bootstrap. `tost` is None without a margin. `outputs` compares the outputs
    themselves; only a contrast of accuracies has it.
    """

    arm: str
    base: str
    split: str
    seeds: tuple[SeedContrast, ...]
    interval: Interval
    p: float
    tost: Tost | None
    spread: float | None
    p_holm: float = 1.0
    alpha: float = ALPHA
    outputs: OutputContrasts | None = None

    @property
    def points(self) -> float:
        """Mean over the seeds."""
        return sum(seed.points for seed in self.seeds) / len(self.seeds)

    @property
    def arm_accuracy(self) -> float:
        """Mean over the seeds of each seed's share of right items, as for `points`."""
        return fmean((s.both + s.only_arm) / s.item_count for s in self.seeds)

    @property
    def baseline_accuracy(self) -> float:
        """The baseline's share, on the same items."""
        return fmean((s.both + s.only_base) / s.item_count for s in self.seeds)

    @property
    def fewest_items(self) -> int:
        """Items of the smallest comparison."""
        return min(seed.item_count for seed in self.seeds)

    @property
    def all_items(self) -> int:
        """Items of all seeds together."""
        return sum(seed.item_count for seed in self.seeds)

    @property
    def most_items(self) -> int:
        """Items of the largest comparison."""
        return max(seed.item_count for seed in self.seeds)

    @property
    def significant_seed_count(self) -> int:
        """How many seeds are significant on their own."""
        return sum(seed.p < self.alpha for seed in self.seeds)

    @property
    def seeds_agree(self) -> bool:
        """Whether all seeds point the same way."""
        return all(s.points > 0 for s in self.seeds) or all(s.points < 0 for s in self.seeds)

    @property
    def is_significant(self) -> bool:
        """Whether the difference counts as significant. `wording.explain_verdict_rule` explains the rule in words."""
        few = 1 < len(self.seeds) < FEW_SEEDS
        return self.is_significant_over_seeds and (not few or self.significant_seed_count >= MIN_SIGNIFICANT_SEEDS)

    @property
    def is_significant_over_seeds(self) -> bool:
        """Whether the test over all seeds is significant. With few seeds, they must also point the same way."""
        # With more seeds it is more likely that one points the other way by chance. If all had to agree, a difference
        # of 2.5 points would be harder to show with 20 seeds than with 5.
        return self.p_holm < ALPHA and (self.seeds_agree or len(self.seeds) >= FEW_SEEDS)

    @property
    def discordant_share(self) -> float:
        """The share of items, from 0 to 1, on which only one of the two is right."""
        return fmean((s.only_arm + s.only_base) / s.item_count for s in self.seeds)

    @property
    def detectable_points(self) -> float | None:
        """The smallest true difference that a study like this finds in 4 cases of 5; None where it can find none.

        With one seed it follows from that seed's test, otherwise from the standard error. With few seeds the standard
        error is so large that the tests of single seeds hardly ever decide.
        """
        if self.discordant_share == 0:
            return None
        one = minimum_detectable_effect(self.fewest_items, self.discordant_share, power=POWER, alpha=self.alpha)
        if one > self.discordant_share and len(self.seeds) < FEW_SEEDS:
            return None
        if self.spread is None:
            return 100 * one
        smallest = self.spread * (NormalDist().inv_cdf(1 - self.alpha / 2) + NormalDist().inv_cdf(POWER))
        return smallest if smallest <= 100 else None

    @property
    def margin_points(self) -> float | None:
        return None if self.tost is None else 100 * self.tost.margin


@dataclass(frozen=True)
class OutputContrasts:
    """How often the outputs of two arms are malformed and truncated, each adjusted like the accuracies.

    `complete` compares the accuracies on the items where the outputs of both arms are complete, which means neither
    malformed nor truncated. It is None where a seed has no such item. It is not adjusted.
    """

    malformed: Contrast
    truncated: Contrast
    complete: Contrast | None
