"""Compares arms item by item: exact tests for each seed, and a bootstrap over seeds and items.

Accuracies, malformed outputs and truncated outputs go through the same tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import NamedTuple

from balanced_thinking.report.compare.contrasts import ALPHA, FEW_UNUSUAL_ITEMS, Contrast, OutputContrasts, SeedContrast
from balanced_thinking.runs.evaluations import Evaluation
from balanced_thinking.runs.load import Run
from balanced_thinking.statistics.bootstrap import PairedBootstrap, PairedOutcomes, paired_bootstraps
from balanced_thinking.statistics.intervals import (
    Interval,
    holm_adjusted,
    paired_counts,
    paired_difference_interval,
    tost_paired,
)

Answers = Mapping[str, bool]


class RunPair(NamedTuple):
    """The runs of an arm and of its baseline, with all their seeds."""

    arm: Sequence[Run]
    base: Sequence[Run]


class PairedAnswers(NamedTuple):
    """For one seed, item id -> yes or no of both arms (right, or malformed, or truncated), on the same items.

    `counted` are the items that count; None means all.
    """

    seed: int | None
    arm: Answers
    base: Answers
    counted: frozenset[str] | None = None

    def count_items(self) -> SeedContrast:
        """On how many of the items that count both, one or neither of them says yes."""
        ours, theirs = (
            {i: yes for i, yes in side.items() if self.counted is None or i in self.counted}
            for side in (self.arm, self.base)
        )
        return SeedContrast(self.seed, *paired_counts(ours, theirs))


class Comparison(NamedTuple):
    """The answers of two arms for all common seeds. `margin` is in points."""

    arm: str
    base: str
    split: str
    answers: Sequence[PairedAnswers]
    margin: float | None = None


class PairedOutputs(NamedTuple):
    """One seed's outputs of both arms, and the items that both answered."""

    seed: int | None
    arm: Evaluation
    base: Evaluation
    items: tuple[str, ...]

    def right(self) -> PairedAnswers:
        """Which answers are right."""
        ours, theirs = ({i: side.correct[i] for i in self.items} for side in (self.arm, self.base))
        return PairedAnswers(self.seed, ours, theirs)

    def right_where_complete(self) -> PairedAnswers:
        """Which answers are right, counted only where both outputs are neither malformed nor truncated."""
        incomplete = self.arm.flawed | self.arm.cut_off | self.base.flawed | self.base.cut_off
        return self.right()._replace(counted=frozenset(self.items) - incomplete)

    def malformed(self) -> PairedAnswers:
        """Which outputs are malformed."""
        return self._among(self.arm.flawed, self.base.flawed)

    def truncated(self) -> PairedAnswers:
        """Which outputs are truncated."""
        return self._among(self.arm.cut_off, self.base.cut_off)

    def _among(self, ours: set[str], theirs: set[str]) -> PairedAnswers:
        return PairedAnswers(self.seed, {i: i in ours for i in self.items}, {i: i in theirs for i in self.items})


def compare_arms(pairs: Sequence[RunPair], split: str, margin: float | None, notes: list[str]) -> tuple[Contrast, ...]:
    """The contrast of every pair and those of its outputs, each with p adjusted over all pairs.

    Pairs without a common seed and common items have none. `margin` is in points. `notes` get what cannot be compared,
    or only in part.
    """
    found: list[tuple[str, str, list[PairedOutputs]]] = []
    for runs, base in pairs:
        if outputs := list(_pair_outputs(runs, base, split, notes)):
            found.append((runs[0].arm, base[0].arm, outputs))
        else:
            notes.append(
                f"{runs[0].arm}: not compared with {base[0].arm} on {split}: no seed has comparable predictions of both"
            )

    def comparisons(read: Callable[[PairedOutputs], PairedAnswers], margin: float | None = None) -> list[Comparison]:
        return [Comparison(arm, base, split, [read(each) for each in outputs], margin) for arm, base, outputs in found]

    families = [
        comparisons(PairedOutputs.right, margin),
        comparisons(PairedOutputs.malformed),
        comparisons(PairedOutputs.truncated),
        comparisons(PairedOutputs.right_where_complete),
    ]
    made = iter(make_contrasts([comparison for family in families for comparison in family]))
    right, malformed, truncated, complete = ([next(made) for _ in family] for family in families)
    tested = map(OutputContrasts, adjust_contrasts(malformed), adjust_contrasts(truncated), complete)
    return tuple(replace(one, outputs=its) for one, its in zip(adjust_contrasts(right), tested, strict=True))


def make_contrasts(comparisons: Sequence[Comparison]) -> list[Contrast | None]:
    """The contrast of every comparison, not adjusted; None where a seed has no item that counts."""
    usable = [all(each.counted is None or each.counted for each in one.answers) for one in comparisons]
    seeds = [
        tuple(each.count_items() for each in one.answers) if good else ()
        for one, good in zip(comparisons, usable, strict=True)
    ]
    # Seeds can only be resampled where there are several, and a bootstrap without any disagreement has no width.
    resampled = [i for i, found in enumerate(seeds) if len(found) > 1 and any(s.only_arm + s.only_base for s in found)]
    drawn = dict(
        zip(resampled, paired_bootstraps([_keyed_by_seed(comparisons[i].answers) for i in resampled]), strict=True)
    )
    return [
        _make_contrast(one, found, drawn.get(i)) if found else None
        for i, (one, found) in enumerate(zip(comparisons, seeds, strict=True))
    ]


def _make_contrast(one: Comparison, seeds: tuple[SeedContrast, ...], drawn: PairedBootstrap | None) -> Contrast:
    arm, base, split, _, margin = one
    if drawn is None:
        least = min(seeds, key=lambda seed: seed.item_count)
        tost = None if margin is None else tost_paired(*least.counts, margin=margin / 100)
        return Contrast(arm, base, split, seeds, least.interval, least.p, tost, None)
    wide = drawn.widened_for_seeds()
    # Widened draws can leave the scale.
    interval = Interval(max(-100.0, 100 * wide.low), min(100.0, 100 * wide.high))
    tost = None if margin is None else wide.tost(margin / 100)
    made = Contrast(arm, base, split, seeds, interval, wide.p_two_sided, tost, 100 * wide.standard_error)
    return made if any(seed.unusual_items >= FEW_UNUSUAL_ITEMS for seed in seeds) else _widen_for_few_items(made)


def _widen_for_few_items(found: Contrast) -> Contrast:
    """The contrast with the wider of two intervals and the larger of two p: the bootstrap's and Tango's.

    A resample never has an outcome that no item had. So with few items that differ from the rest, a bootstrap is too
    sure: with one disagreement, all resamples agree on who is better. Tango's are for as many independent items as give
    the bootstrap's standard error, as for clustered samples (Korn and Graubard 1998, Survey Methodology 24:193-201).
    """
    share, difference, error = found.discordant_share, found.points / 100, (found.spread or 0.0) / 100
    items = min(max(1.0, (share - difference**2) / error**2), found.all_items) if error else found.fewest_items
    ours, theirs = (max(0.0, items * (share + sign * difference) / 2) for sign in (1, -1))
    counts = (max(0.0, items - ours - theirs), ours, theirs, 0.0)
    low, high = paired_difference_interval(*counts)
    none, tost = tost_paired(*counts, margin=0), found.tost
    if tost is not None:
        score = tost_paired(*counts, margin=tost.margin)
        tost = replace(
            tost,
            p_non_inferior=max(tost.p_non_inferior, score.p_non_inferior),
            p_non_superior=max(tost.p_non_superior, score.p_non_superior),
        )
    return replace(
        found,
        interval=Interval(min(found.interval.low, 100 * low), max(found.interval.high, 100 * high)),
        p=max(found.p, min(1.0, 2 * min(none.p_non_inferior, none.p_non_superior))),
        tost=tost,
        spread=max(100 * error, 100 * sqrt(share / items)),
    )


def _keyed_by_seed(answers: Sequence[PairedAnswers]) -> PairedOutcomes:
    # Where runs have not recorded their seed there is one of each arm, so any key will do.
    keyed = {each.seed or 0: each for each in answers}
    counted = {key: each.counted for key, each in keyed.items() if each.counted is not None}
    ours, theirs = {key: each.arm for key, each in keyed.items()}, {key: each.base for key, each in keyed.items()}
    return PairedOutcomes(ours, theirs, counted or None)


def adjust_contrasts(found: Sequence[Contrast | None]) -> list[Contrast]:
    """The contrasts with p and the level of single seeds adjusted over all of them; None is left out."""
    contrasts = [contrast for contrast in found if contrast is not None]
    adjusted = holm_adjusted([contrast.p for contrast in contrasts])
    return [
        replace(contrast, p_holm=p, alpha=ALPHA / len(contrasts))
        for contrast, p in zip(contrasts, adjusted, strict=True)
    ]


def _pair_outputs(
    runs: Sequence[Run], baseline_runs: Sequence[Run], split: str, notes: list[str]
) -> Iterator[PairedOutputs]:
    """The outputs of both arms for every common seed, on the items that both answered."""
    baseline, seen, compared = {run.seed: run for run in baseline_runs}, set[tuple[Path, Path]](), set[int | None]()
    for run in runs:
        other = baseline.get(run.seed)
        # Two seedless models are repeated for every seed. Their answers are compared once.
        if other is None or (pair := (run.folder, other.folder)) in seen or not _are_comparable(run, other, split):
            continue
        seen.add(pair)
        ours, theirs = (each.evaluations[split] for each in (run, other))
        common = tuple(sorted(ours.correct.keys() & theirs.correct.keys()))
        if not common:
            continue
        if len(common) < max(len(ours.correct), len(theirs.correct)):
            shared = f"the {len(common)} items of {split} that both answered"
            notes.append(f"{run.label}: compared with {baseline_runs[0].arm} on {shared}")
        compared.add(run.seed)
        yield PairedOutputs(run.seed, ours, theirs, common)
    evaluated = {run.seed for run in (*runs, *baseline_runs) if not run.is_seedless and split in run.evaluations}
    if compared and (left := sorted(seed for seed in evaluated - compared if seed is not None)):
        seeds = f"seed{'s' * (len(left) > 1)} {', '.join(map(str, left))}"
        names = f"{runs[0].arm}: compared with {baseline_runs[0].arm} on {split}"
        notes.append(f"{names} without {seeds}, of which not both have comparable predictions")


def _are_comparable(a: Run, b: Run, split: str) -> bool:
    """Whether both were evaluated on the split, on the same items and with the same protocol, as far as recorded."""
    ours, theirs = a.evaluations.get(split), b.evaluations.get(split)
    return (
        ours is not None
        and theirs is not None
        and ours.has_no_conflicting_ids(theirs)
        and ours.agrees_on_protocol(theirs)
    )
