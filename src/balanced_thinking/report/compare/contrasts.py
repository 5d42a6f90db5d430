"""Compares two arms on the same items: exact tests for each seed, a bootstrap over seeds and items, and a verdict.

Points are percentage points of accuracy, the arm minus its baseline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist, pstdev
from typing import NamedTuple

from balanced_thinking.runs.load import Run
from balanced_thinking.statistics.bootstrap import paired_bootstrap
from balanced_thinking.statistics.intervals import (
    Interval,
    PairedCounts,
    Tost,
    holm_adjusted,
    mcnemar_exact,
    minimum_detectable_effect,
    paired_counts,
    paired_difference_interval,
    tost_paired,
)

ALPHA = 0.05
POWER = 0.8
# With fewer seeds than FEW_SEEDS, the bootstrap estimates the spread between seeds too poorly to decide alone. Then all
# seeds must point the same way, and MIN_SIGNIFICANT_SEEDS of them must be significant on their own. This is not a share
# of the seeds: three of four are harder to reach than two of three, so more seeds would lower the power.
FEW_SEEDS = 5
MIN_SIGNIFICANT_SEEDS = 2
# A study that would often miss a true difference of this many points has too little power.
DETECTABLE_POINTS = 3.0

Answers = Mapping[str, bool]


class RunPair(NamedTuple):
    """The runs of an arm and of its baseline, with all their seeds."""

    arm: Sequence[Run]
    base: Sequence[Run]


class PairedAnswers(NamedTuple):
    """For one seed, item id -> right or wrong of both arms, on the same items."""

    seed: int | None
    arm: Answers
    base: Answers


@dataclass(frozen=True)
class SeedContrast:
    """Two arms on the same items with one seed: on how many items both, one or neither of them is right."""

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

    `interval` (95 %), `p` and `tost` are over all seeds, from a bootstrap. With one seed, or without any disagreement,
    they are from one seed's counts. `p_holm` is `p` adjusted over the contrasts of the split. `alpha` is the level of
    the tests of single seeds. `spread` is the standard error in points, None without a bootstrap. `tost` is None
    without a margin.
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

    @property
    def points(self) -> float:
        """Mean over the seeds."""
        return sum(seed.points for seed in self.seeds) / len(self.seeds)

    @property
    def arm_accuracy(self) -> float:
        """Share of items right, over all seeds."""
        return sum(s.both + s.only_arm for s in self.seeds) / sum(s.item_count for s in self.seeds)

    @property
    def baseline_accuracy(self) -> float:
        """The baseline's share, on the same items."""
        return sum(s.both + s.only_base for s in self.seeds) / sum(s.item_count for s in self.seeds)

    @property
    def fewest_items(self) -> int:
        """Items of the smallest comparison."""
        return min(seed.item_count for seed in self.seeds)

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
        return sum(s.only_arm + s.only_base for s in self.seeds) / sum(s.item_count for s in self.seeds)

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
        return self.spread * (NormalDist().inv_cdf(1 - self.alpha / 2) + NormalDist().inv_cdf(POWER))

    @property
    def margin_points(self) -> float | None:
        return None if self.tost is None else 100 * self.tost.margin


def compare_arms(pairs: Sequence[RunPair], split: str, margin: float | None, notes: list[str]) -> tuple[Contrast, ...]:
    """The contrast of every pair, with p adjusted over all of them.

    Pairs without a common seed and common items have none. `margin` is in points. `notes` get what cannot be compared,
    or only in part.
    """
    made = []
    for runs, base in pairs:
        answers = list(_paired_answers(runs, base, split, notes))
        if answers:
            made.append(_make_contrast(runs[0].arm, base[0].arm, split, answers, margin))
        else:
            notes.append(
                f"{runs[0].arm}: not compared with {base[0].arm} on {split}: no seed has comparable predictions of both"
            )
    adjusted = holm_adjusted([contrast.p for contrast in made])
    return tuple(
        replace(contrast, p_holm=p, alpha=ALPHA / len(made)) for contrast, p in zip(made, adjusted, strict=True)
    )


def _make_contrast(
    arm: str, baseline: str, split: str, answers: Sequence[PairedAnswers], margin: float | None
) -> Contrast:
    seeds = tuple(SeedContrast(each.seed, *paired_counts(each.arm, each.base)) for each in answers)
    if len(seeds) == 1 or not any(seed.only_arm + seed.only_base for seed in seeds):
        one = min(seeds, key=lambda seed: seed.item_count)
        tost = None if margin is None else tost_paired(*one.counts, margin=margin / 100)
        return Contrast(arm, baseline, split, seeds, one.interval, one.p, tost, None)
    # Where runs have not recorded their seed there is one of each arm, so any key will do.
    ours, theirs = {each.seed or 0: each.arm for each in answers}, {each.seed or 0: each.base for each in answers}
    found = paired_bootstrap(ours, theirs).widened_for_seeds()
    tost = None if margin is None else found.tost(margin / 100)
    interval = Interval(100 * found.low, 100 * found.high)
    return Contrast(arm, baseline, split, seeds, interval, found.p_two_sided, tost, 100 * pstdev(found.draws))


def _paired_answers(
    runs: Sequence[Run], baseline_runs: Sequence[Run], split: str, notes: list[str]
) -> Iterable[PairedAnswers]:
    """The answers of both arms for every common seed, on the items that both answered."""
    baseline, seen = {run.seed: run for run in baseline_runs}, set[tuple[Path, Path]]()
    for run in runs:
        other = baseline.get(run.seed)
        # Two seedless models are repeated for every seed. Their answers are compared once.
        if other is None or (pair := (run.folder, other.folder)) in seen or not _are_comparable(run, other, split):
            continue
        seen.add(pair)
        ours, theirs = (each.evaluations[split].correct for each in (run, other))
        common = sorted(ours.keys() & theirs.keys())
        if not common:
            continue
        if len(common) < max(len(ours), len(theirs)):
            shared = f"the {len(common)} items of {split} that both answered"
            notes.append(f"{run.label}: compared with {baseline_runs[0].arm} on {shared}")
        yield PairedAnswers(run.seed, {i: ours[i] for i in common}, {i: theirs[i] for i in common})


def _are_comparable(a: Run, b: Run, split: str) -> bool:
    """Whether both were evaluated on the split, on the same items and with the same protocol, as far as recorded."""
    ours, theirs = a.evaluations.get(split), b.evaluations.get(split)
    return (
        ours is not None
        and theirs is not None
        and ours.has_no_conflicting_ids(theirs)
        and ours.agrees_on_protocol(theirs)
    )
