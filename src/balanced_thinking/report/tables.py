"""The numbers of a report as plain rows: paired contrasts of arms, the table of arms, question families, settings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from balanced_thinking.evaluation.statistics import (
    mcnemar_exact,
    minimum_detectable_effect,
    paired_counts,
    paired_difference_interval,
    wilson_interval,
)
from balanced_thinking.report.runs import Evaluation, Run, Tally

BASELINE_ARM = "sft"
MAIN_SPLIT = "test"
ALPHA = 0.05


@dataclass(frozen=True)
class SeedContrast:
    """Two arms on the same items with one seed: how many items both, one or neither of them got right."""

    seed: int | None
    both: int
    only_arm: int
    only_base: int
    neither: int

    @property
    def n(self) -> int:
        return self.both + self.only_arm + self.only_base + self.neither

    @property
    def points(self) -> float:
        """Accuracy of the arm minus that of the baseline, in percentage points."""
        return 100 * (self.only_arm - self.only_base) / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of `points`."""
        low, high = paired_difference_interval(self.both, self.only_arm, self.only_base, self.neither)
        return 100 * low, 100 * high

    @property
    def p(self) -> float:
        return mcnemar_exact(self.only_arm, self.only_base)


@dataclass(frozen=True)
class Contrast:
    """One arm against the baseline. `alpha` is the level each p is held against, `split` where they were compared."""

    arm: str
    base: str
    split: str
    alpha: float
    seeds: tuple[SeedContrast, ...]

    @property
    def points(self) -> float:
        """Mean over the seeds, in percentage points."""
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
    def shown(self) -> bool:
        """Whether a difference was shown: every seed points the same way, and most do so with p below `alpha`."""
        same_way = all(s.points > 0 for s in self.seeds) or all(s.points < 0 for s in self.seeds)
        return same_way and sum(seed.p < self.alpha for seed in self.seeds) > len(self.seeds) / 2

    @property
    def discordant(self) -> float:
        """The share of items, from 0 to 1, that only one of the two got right."""
        return sum(s.only_arm + s.only_base for s in self.seeds) / sum(s.n for s in self.seeds)

    @property
    def detectable_points(self) -> float | None:
        """The smallest difference, in points, one seed would show in 4 studies of 5; None where none could be."""
        if self.discordant == 0:
            return None
        smallest = minimum_detectable_effect(self.n, self.discordant, alpha=self.alpha)
        return 100 * smallest if smallest <= self.discordant else None


@dataclass(frozen=True)
class ArmRow:
    """One arm on one split, all its seeds together. Rates and accuracies are shares from 0 to 1, times are seconds.

    `n` counts items of one seed. `low` and `high` are the Wilson 95 % interval at `n` items: the seeds answer the same
    items, so counting each answer as a new item would make the interval too narrow.
    """

    arm: str
    split: str
    seeds: int
    n: int
    accuracy: float
    low: float
    high: float
    seed_range: tuple[float, float] | None
    malformed: float
    truncated: float
    think_tokens: float | None
    answer_tokens: float | None
    train_seconds: float | None
    relative_time: float | None


@dataclass(frozen=True)
class FamilyRow:
    """One question family: items per arm and seed, and each arm's accuracy (None where it has no such items)."""

    family: str
    n: int
    accuracies: tuple[float | None, ...]


@dataclass(frozen=True)
class SettingRow:
    """One key, and for each arm the distinct values that its runs give it."""

    key: str
    values: tuple[tuple[str, ...], ...]

    @property
    def differs(self) -> bool:
        return len(set(self.values)) > 1


@dataclass(frozen=True)
class Tables:
    """Every number of a report. `arms` is the order of all columns, the baseline first."""

    arms: tuple[str, ...]
    base: str
    main_split: str | None
    contrasts: tuple[Contrast, ...]
    splits: Mapping[str, tuple[ArmRow, ...]]
    families: tuple[FamilyRow, ...]
    config: tuple[SettingRow, ...]
    provenance: tuple[SettingRow, ...]
    notes: tuple[str, ...]


def make_tables(runs: Sequence[Run]) -> Tables:
    """The tables of at least one run."""
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.arm].append(run)
    base = _baseline(groups)
    arms = (base, *sorted(arm for arm in groups if arm != base))
    names = {split for run in runs for split in run.evaluations}
    # A folder is named `<data>-<split>`.
    splits = sorted(names, key=lambda name: (name.rpartition("-")[2] != MAIN_SPLIT, name))
    main = splits[0] if splits else None
    notes = [f"{run.label}: {note}" for run in runs for note in run.notes]
    notes += [note for split in splits if (note := _different_data(runs, split))]
    ordered = [groups[arm] for arm in arms]
    return Tables(
        arms=arms,
        base=base,
        main_split=main,
        contrasts=_contrasts(ordered, main, notes) if main else (),
        splits={split: _arm_rows(ordered, split) for split in splits},
        families=_families(ordered, main) if main else (),
        config=_settings(ordered, lambda run: run.config),
        provenance=_settings(ordered, lambda run: {**run.provenance, **run.hashes}),
        notes=tuple(notes),
    )


def _baseline(groups: Mapping[str, Sequence[Run]]) -> str:
    """The arm named `sft`, else one trained with uniform weights, else the first by name."""
    uniform = (arm for arm, runs in groups.items() if _weighting(runs[0]) == "uniform")
    return BASELINE_ARM if BASELINE_ARM in groups else next(uniform, min(groups))


def _weighting(run: Run) -> object:
    training = run.config.get("training")
    return training.get("weighting") if isinstance(training, dict) else None


def _different_data(runs: Sequence[Run], split: str) -> str | None:
    """A note where one name of a split stands for several data sets, whose ids must not be paired."""
    by_data: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        if split in run.evaluations and (data := run.evaluations[split].data) is not None:
            by_data[data].append(run.label)
    if len(by_data) < 2:
        return None
    found = "; ".join(f"{data} ({', '.join(labels)})" for data, labels in by_data.items())
    return f"{split} is not the same data in all runs: {found}; only runs on the same data are compared item by item"


def _contrasts(groups: Sequence[Sequence[Run]], split: str, notes: list[str]) -> tuple[Contrast, ...]:
    base, *others = groups
    made = []
    for runs in others:
        seeds = tuple(_paired(runs, base, split, notes))
        if seeds:
            made.append((runs[0].arm, seeds))
        else:
            notes.append(f"{runs[0].arm}: not compared with {base[0].arm}, no seed has predictions of both on {split}")
    return tuple(Contrast(arm, base[0].arm, split, ALPHA / len(made), seeds) for arm, seeds in made)


def _paired(runs: Sequence[Run], base: Sequence[Run], split: str, notes: list[str]) -> Iterable[SeedContrast]:
    baseline = {run.seed: run for run in base}
    for run in runs:
        other = baseline.get(run.seed)
        if other is None or not _same_data(run, other, split):
            continue
        ours, theirs = _answers(run, split), _answers(other, split)
        common = ours.keys() & theirs.keys()
        if not common:
            continue
        if len(common) < max(len(ours), len(theirs)):
            shared = f"the {len(common)} items of {split} that both answered"
            notes.append(f"{run.label}: compared with {base[0].arm} on {shared}")
        counts = paired_counts({i: ours[i] for i in common}, {i: theirs[i] for i in common})
        yield SeedContrast(run.seed, *counts)


def _same_data(a: Run, b: Run, split: str) -> bool:
    """Whether both were evaluated on it, and their summaries, where they say, name the same data."""
    if split not in a.evaluations or split not in b.evaluations:
        return False
    named = {a.evaluations[split].data, b.evaluations[split].data} - {None}
    return len(named) < 2


def _answers(run: Run, split: str) -> Mapping[str, bool]:
    return run.evaluations[split].correct


def _arm_rows(groups: Sequence[Sequence[Run]], split: str) -> tuple[ArmRow, ...]:
    base_seconds = _mean(run.train_seconds for run in groups[0])
    rows = (_arm_row(runs, split, base_seconds) for runs in groups)
    return tuple(row for row in rows if row is not None)


def _arm_row(runs: Sequence[Run], split: str, base_seconds: float | None) -> ArmRow | None:
    evaluations = [e for run in runs if (e := run.evaluations.get(split)) is not None and e.total.n]
    if not evaluations:
        return None
    seeds, total = len(evaluations), _pool(e.total for e in evaluations)
    items = round(total.n / seeds)
    low, high = wilson_interval(round(total.correct / seeds), items)
    shares = [e.total.correct / e.total.n for e in evaluations]
    seconds = _mean(run.train_seconds for run in runs)
    return ArmRow(
        arm=runs[0].arm,
        split=split,
        seeds=seeds,
        n=items,
        accuracy=total.correct / total.n,
        low=low,
        high=high,
        seed_range=(min(shares), max(shares)) if seeds > 1 else None,
        malformed=sum(e.malformed for e in evaluations) / total.n,
        truncated=sum(e.truncated for e in evaluations) / total.n,
        think_tokens=_mean(e.think_tokens_mean for e in evaluations),
        answer_tokens=_mean(e.answer_tokens_mean for e in evaluations),
        train_seconds=seconds,
        relative_time=seconds / base_seconds if seconds is not None and base_seconds else None,
    )


def _families(groups: Sequence[Sequence[Run]], split: str) -> tuple[FamilyRow, ...]:
    evaluations = [[e for run in runs if (e := run.evaluations.get(split)) is not None] for runs in groups]
    names = sorted({name for arm in evaluations for evaluation in arm for name in evaluation.families})
    return tuple(_family(name, evaluations) for name in names)


def _family(name: str, evaluations: Sequence[Sequence[Evaluation]]) -> FamilyRow:
    totals = [_pool(e.families[name] for e in arm if name in e.families) for arm in evaluations]
    items = max(evaluation.families[name].n for arm in evaluations for evaluation in arm if name in evaluation.families)
    return FamilyRow(name, items, tuple(total.correct / total.n if total.n else None for total in totals))


def _pool(tallies: Iterable[Tally]) -> Tally:
    pooled = Tally()
    for tally in tallies:
        pooled.n, pooled.correct = pooled.n + tally.n, pooled.correct + tally.correct
    return pooled


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _settings(groups: Sequence[Sequence[Run]], pick: Callable[[Run], Mapping[str, Any]]) -> tuple[SettingRow, ...]:
    flat = [[dict(_flatten(pick(run))) for run in runs] for runs in groups]
    keys = dict.fromkeys(key for runs in flat for run in runs for key in run)
    return tuple(SettingRow(key, tuple(_distinct(run.get(key, "") for run in runs) for runs in flat)) for key in keys)


def _flatten(mapping: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in mapping.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", "" if value is None else str(value)


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for value in values if value))
