"""Two arms on the same items: exact tests seed by seed, a bootstrap over seeds and items, and what both show together.

Points are percentage points of accuracy, the arm minus its baseline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist, pstdev

from balanced_thinking.runs.load import Run
from balanced_thinking.statistics.bootstrap import paired_bootstrap
from balanced_thinking.statistics.intervals import (
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
# Below this many seeds the bootstrap knows too little of the spread between seeds to be trusted alone: all seeds must
# point the same way, and this many show the difference by themselves. Not a share of them: of four seeds, three are
# harder to have than two of three, and more seeds would show less.
FEW_SEEDS = 5
ALONE = 2
# A study that would miss a true difference of this many points has too little power.
DETECTABLE_POINTS = 3.0

Answers = Mapping[str, bool]


@dataclass(frozen=True)
class SeedContrast:
    """Two arms on the same items with one seed: how many items both, one or neither of them got right."""

    seed: int | None
    both: int
    only_arm: int
    only_base: int
    neither: int

    @property
    def counts(self) -> tuple[int, int, int, int]:
        return self.both, self.only_arm, self.only_base, self.neither

    @property
    def n(self) -> int:
        return sum(self.counts)

    @property
    def points(self) -> float:
        return 100 * (self.only_arm - self.only_base) / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of `points`."""
        low, high = paired_difference_interval(*self.counts)
        return 100 * low, 100 * high

    @property
    def p(self) -> float:
        return mcnemar_exact(self.only_arm, self.only_base)


@dataclass(frozen=True)
class Contrast:
    """One arm against another on `split`.

    `interval` (95 %), `p` and `tost` take all seeds together: by bootstrap, or, with one seed or without a single
    disagreement, from that seed's counts. `p_holm` is `p` adjusted over the contrasts of the split, `alpha` the level
    of one seed's own test, `spread` the standard error in points, where there is a bootstrap. `tost` is None without a
    margin.
    """

    arm: str
    base: str
    split: str
    seeds: tuple[SeedContrast, ...]
    interval: tuple[float, float]
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
        return sum(s.both + s.only_arm for s in self.seeds) / sum(s.n for s in self.seeds)

    @property
    def base_accuracy(self) -> float:
        """The baseline's share, on the same items."""
        return sum(s.both + s.only_base for s in self.seeds) / sum(s.n for s in self.seeds)

    @property
    def n(self) -> int:
        """Items of the smallest comparison."""
        return min(seed.n for seed in self.seeds)

    @property
    def significant_seeds(self) -> int:
        """How many seeds show a difference by themselves."""
        return sum(seed.p < self.alpha for seed in self.seeds)

    @property
    def same_way(self) -> bool:
        return all(s.points > 0 for s in self.seeds) or all(s.points < 0 for s in self.seeds)

    @property
    def shown(self) -> bool:
        """Whether a difference was shown; `wording.rule` says how that is decided."""
        few = 1 < len(self.seeds) < FEW_SEEDS
        return self.likely and (not few or self.significant_seeds >= ALONE)

    @property
    def likely(self) -> bool:
        """Whether only more seeds are wanting, or nothing."""
        # The more seeds, the likelier that one of them points the other way by chance: asking for all would make a
        # difference of 2.5 points harder to show with 20 seeds than with 5.
        return self.p_holm < ALPHA and (self.same_way or len(self.seeds) >= FEW_SEEDS)

    @property
    def discordant(self) -> float:
        """The share of items, from 0 to 1, that only one of the two got right."""
        return sum(s.only_arm + s.only_base for s in self.seeds) / sum(s.n for s in self.seeds)

    @property
    def detectable_points(self) -> float | None:
        """The smallest true difference that a study like this shows in 4 cases of 5; None where none could be.

        With one seed its own test sets it, else the standard error: it is wide enough with few seeds that what is asked
        of them one by one hardly ever decides.
        """
        if self.discordant == 0:
            return None
        one = minimum_detectable_effect(self.n, self.discordant, power=POWER, alpha=self.alpha)
        if one > self.discordant and len(self.seeds) < FEW_SEEDS:
            return None
        if self.spread is None:
            return 100 * one
        return self.spread * (NormalDist().inv_cdf(1 - self.alpha / 2) + NormalDist().inv_cdf(POWER))

    @property
    def margin_points(self) -> float | None:
        return None if self.tost is None else 100 * self.tost.margin


def compare(
    pairs: Sequence[tuple[Sequence[Run], Sequence[Run]]], split: str, margin: float | None, notes: list[str]
) -> tuple[Contrast, ...]:
    """The contrast of every (arm's runs, baseline's runs) that share a seed and items, p adjusted over all of them.

    `margin` is in points. What cannot be compared, or only in part, is told in `notes`.
    """
    made = []
    for runs, base in pairs:
        answers = list(_paired(runs, base, split, notes))
        if answers:
            made.append(_contrast(runs[0].arm, base[0].arm, split, answers, margin))
        else:
            notes.append(
                f"{runs[0].arm}: not compared with {base[0].arm}, no seed has comparable predictions of both on {split}"
            )
    adjusted = holm_adjusted([contrast.p for contrast in made])
    return tuple(
        replace(contrast, p_holm=p, alpha=ALPHA / len(made)) for contrast, p in zip(made, adjusted, strict=True)
    )


def _contrast(
    arm: str, base: str, split: str, answers: Sequence[tuple[int | None, Answers, Answers]], margin: float | None
) -> Contrast:
    seeds = tuple(SeedContrast(seed, *paired_counts(ours, theirs)) for seed, ours, theirs in answers)
    if len(seeds) == 1 or not any(seed.only_arm + seed.only_base for seed in seeds):
        one = min(seeds, key=lambda seed: seed.n)
        tost = None if margin is None else tost_paired(*one.counts, margin=margin / 100)
        return Contrast(arm, base, split, seeds, one.interval, one.p, tost, None)
    # Where runs don't state their seed there is one of each arm, so the key doesn't matter.
    a, b = ({seed or 0: pair[side] for seed, *pair in answers} for side in (0, 1))
    found = paired_bootstrap(a, b).widened_for_seeds()
    tost = None if margin is None else found.tost(margin / 100)
    interval = 100 * found.low, 100 * found.high
    return Contrast(arm, base, split, seeds, interval, found.p_two_sided, tost, 100 * pstdev(found.draws))


def _paired(
    runs: Sequence[Run], base: Sequence[Run], split: str, notes: list[str]
) -> Iterable[tuple[int | None, Answers, Answers]]:
    """(seed, the arm's verdicts, the baseline's) on the items that both answered."""
    baseline, seen = {run.seed: run for run in base}, set[tuple[Path, Path]]()
    for run in runs:
        other = baseline.get(run.seed)
        # Two models that were not trained here stand beside every seed: their answers are compared once.
        if other is None or (pair := (run.folder, other.folder)) in seen or not _comparable(run, other, split):
            continue
        seen.add(pair)
        ours, theirs = (each.evaluations[split].correct for each in (run, other))
        common = sorted(ours.keys() & theirs.keys())
        if not common:
            continue
        if len(common) < max(len(ours), len(theirs)):
            shared = f"the {len(common)} items of {split} that both answered"
            notes.append(f"{run.label}: compared with {base[0].arm} on {shared}")
        yield run.seed, {i: ours[i] for i in common}, {i: theirs[i] for i in common}


def _comparable(a: Run, b: Run, split: str) -> bool:
    """Whether both were evaluated on it, and, as far as they say, on the same items in the same manner."""
    ours, theirs = a.evaluations.get(split), b.evaluations.get(split)
    return ours is not None and theirs is not None and ours.has_same_items(theirs) and ours.has_same_protocol(theirs)
