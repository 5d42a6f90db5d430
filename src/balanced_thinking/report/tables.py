"""The numbers of a report as plain rows: paired contrasts of arms, the table of arms, question families, settings."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from balanced_thinking.evaluation.statistics import wilson_interval
from balanced_thinking.report.contrasts import Contrast, compare
from balanced_thinking.report.cost import CostRow, chain_seconds, orphans
from balanced_thinking.report.failures import GROUPS
from balanced_thinking.report.plan import MAIN_SPLIT, Plan
from balanced_thinking.report.runs import Evaluation, Run, Tally, mean, number

BASELINE_ARM = "sft"
NO_PLAN = Plan()

Costing = Callable[[Sequence[Sequence[Run]]], tuple[CostRow, ...]]


@dataclass(frozen=True)
class ArmRow:
    """One arm on one split, all its seeds together. Rates and accuracies are shares from 0 to 1, times are seconds.

    `seeds` is 0 for a model that was not trained here. `n` counts items of one seed. `low` and `high` are the Wilson
    95 % interval at `n` items: the seeds answer the same items, so counting each answer as a new item would make the
    interval too narrow. `train_seconds` includes the runs that a run started from. `asked` names the prompts and
    scorers; `score` is None where summaries don't give it.
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
    score: float | None = None
    asked: str = ""
    setting: str = ""


@dataclass(frozen=True)
class FamilyRow:
    """One question family: items per arm and seed, and each arm's accuracy (None where it has no such items)."""

    family: str
    n: int
    accuracies: tuple[float | None, ...]


@dataclass(frozen=True)
class FailureRow:
    """One arm's completions by `failures.GROUPS`, as shares of all, in that order."""

    arm: str
    n: int
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Leader:
    """The most accurate arm of a split; `second` is its contrast with the next. `best` only if it beats every other."""

    arm: str
    second: Contrast
    best: bool


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
    """Every number of one setting. `arms` is the order of all columns, the baseline first.

    `splits` are in the order of the study's benchmarks, the main split first. `contrasts` are those of the main split,
    `by_split` those of every split.
    """

    arms: tuple[str, ...]
    base: str
    main_split: str | None
    contrasts: tuple[Contrast, ...]
    by_split: Mapping[str, tuple[Contrast, ...]]
    leaders: Mapping[str, Leader]
    splits: Mapping[str, tuple[ArmRow, ...]]
    families: tuple[FamilyRow, ...]
    failures: tuple[FailureRow, ...]
    costs: tuple[CostRow, ...]
    config: tuple[SettingRow, ...]
    provenance: tuple[SettingRow, ...]
    notes: tuple[str, ...]


def make_tables(
    runs: Sequence[Run], plan: Plan = NO_PLAN, arms: Sequence[str] = (), costs: Costing | None = None
) -> Tables:
    """The tables of at least one run. `arms` is an order that several settings share; `costs` reads a ledger."""
    groups = group(runs)
    arms = tuple(arm for arm in arms or order_arms(runs, plan) if arm in groups)
    splits = _order_splits(runs, plan)
    main = splits[0] if splits else None
    notes = [f"{run.label}: {note}" for run in runs for note in run.notes] + orphans(runs)
    notes += [note for split in splits for note in _differences(runs, split)]
    ordered = [groups[arm] for arm in arms]
    pairs = _pairs(groups, arms, plan, notes)
    by_split = {split: compare(pairs, split, plan.margin, notes) for split in splits}
    rows = {split: _arm_rows(ordered, split) for split in splits}
    return Tables(
        arms=arms,
        base=arms[0],
        main_split=main,
        contrasts=by_split[main] if main else (),
        by_split=by_split,
        leaders={s: leader for s in splits if (leader := _leader(groups, rows[s], s, plan.margin)) is not None},
        splits=rows,
        families=_families(ordered, main) if main else (),
        failures=_failures(ordered, main) if main else (),
        costs=costs(ordered) if costs else (),
        config=_settings(ordered, lambda run: run.config),
        provenance=_settings(ordered, lambda run: {**run.provenance, **run.hashes}),
        notes=tuple(notes),
    )


def group(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs of every arm."""
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.arm].append(run)
    return groups


def order_arms(runs: Sequence[Run], plan: Plan) -> tuple[str, ...]:
    """The baseline, then the arms in the study's order, then others by name."""
    groups = group(runs)
    base, rank = _baseline(groups), {arm: place for place, arm in enumerate(plan.arms)}
    return (base, *sorted(groups.keys() - {base}, key=lambda arm: (rank.get(arm, len(rank)), arm)))


def _order_splits(runs: Sequence[Run], plan: Plan) -> list[str]:
    """The folders of results: as the study's benchmarks and their splits follow each other, then tests, by name."""
    # By what the summaries say, for a folder's name depends on where the study was started.
    planned = {pair: place for place, pair in enumerate(plan.benchmarks)}
    ranks: dict[str, int] = {}
    for name, found in ((name, found) for run in runs for name, found in run.evaluations.items()):
        rank = planned.get((str(found.summary.get("data")), str(found.summary.get("split"))), len(planned))
        ranks[name] = min(rank, ranks.get(name, rank))
    # A folder is named `<data>-<split>`.
    return sorted(ranks, key=lambda name: (ranks[name], name.rpartition("-")[2] != MAIN_SPLIT, name))


def _pairs(
    groups: Mapping[str, Sequence[Run]], arms: Sequence[str], plan: Plan, notes: list[str]
) -> list[tuple[Sequence[Run], Sequence[Run]]]:
    """The study's contrasts, else every arm against the baseline."""
    named = plan.contrasts or tuple((arm, arms[0]) for arm in arms[1:])
    absent = [f"{arm} with {base}" for arm, base in named if arm not in groups or base not in groups]
    if absent:
        notes.append(f"contrasts of the study without runs of both arms: {'; '.join(absent)}")
    return [(groups[arm], groups[base]) for arm, base in named if arm in groups and base in groups]


def _leader(
    groups: Mapping[str, Sequence[Run]], rows: Sequence[ArmRow], split: str, margin: float | None
) -> Leader | None:
    """The leading arm of the split, compared with every other: p is adjusted over all of these comparisons."""
    first, *others = [row.arm for row in sorted(rows, key=lambda row: -row.accuracy)] or [""]
    contrasts = compare([(groups[first], groups[arm]) for arm in others], split, margin, [])
    if not contrasts or contrasts[0].base != others[0]:
        return None
    best = len(contrasts) == len(others) and all(c.shown and c.points > 0 for c in contrasts)
    return Leader(first, contrasts[0], best)


def _baseline(groups: Mapping[str, Sequence[Run]]) -> str:
    """The arm named `sft`, else the plain one (uniform weights, from no other arm), else the first by name."""
    plain = {arm for arm, runs in groups.items() if _weighting(runs[0]) == "uniform" and runs[0].stage == "sft"}
    uniform = iter(sorted(plain))
    return BASELINE_ARM if BASELINE_ARM in groups else next(uniform, min(groups))


def _weighting(run: Run) -> object:
    training = run.config.get("training")
    return training.get("weighting") if isinstance(training, dict) else None


def _differences(runs: Sequence[Run], split: str) -> Iterable[str]:
    """Notes where one name of a split stands for several data sets or versions of one, whose ids must not be paired, or
    for several ways of asking and judging."""
    evaluated = [run for run in runs if split in run.evaluations]
    manners = [run.evaluations[split].manner for run in evaluated]
    for what, values in (
        ("the same data", [run.evaluations[split].data for run in evaluated]),
        ("the same items", _versions([run.evaluations[split] for run in evaluated])),
        *(
            ("asked and judged alike", [manner.get(name) for manner in manners])
            for name in dict.fromkeys(name for manner in manners for name in manner)
        ),
    ):
        labels: dict[str, list[str]] = defaultdict(list)
        for run, value in zip(evaluated, values, strict=True):
            if value is not None:
                labels[value].append(run.label)
        if len(labels) > 1:
            found = "; ".join(f"{value} ({', '.join(named)})" for value, named in labels.items())
            yield f"{split} is not {what} in all runs: {found}; only runs that agree are compared item by item"


def _versions(evaluations: Sequence[Evaluation]) -> list[str | None]:
    """The version of the data that each saw: where an id stands for another question, answer, option or picture than
    it does in the first, it is another version."""
    firsts: list[Evaluation] = []
    found: list[str | None] = []
    for evaluation in evaluations:
        place = next((i for i, first in enumerate(firsts) if not first.other_items(evaluation)), len(firsts))
        if place == len(firsts):
            firsts.append(evaluation)
        differing = firsts[0].other_items(evaluation)
        n = len(evaluation.digests)
        other = f", where {differing} of {n} items have another question, answer, option or picture"
        found.append(f"version {place + 1}{other * bool(differing)}" if n else None)
    return found


def _arm_rows(groups: Sequence[Sequence[Run]], split: str) -> tuple[ArmRow, ...]:
    everything = [run for runs in groups for run in runs]
    seconds = {runs[0].arm: mean(chain_seconds(run, everything) for run in runs) for runs in groups}
    rows = (_arm_row(runs, split, seconds[runs[0].arm], seconds[groups[0][0].arm]) for runs in groups)
    return tuple(row for row in rows if row is not None)


def _arm_row(runs: Sequence[Run], split: str, seconds: float | None, base_seconds: float | None) -> ArmRow | None:
    evaluations = [e for run in _once(runs) if (e := run.evaluations.get(split)) is not None and e.total.n]
    if not evaluations:
        return None
    many, total = len(evaluations), _pool(e.total for e in evaluations)
    items = round(total.n / many)
    low, high = wilson_interval(round(total.correct / many), items)
    shares = [e.total.correct / e.total.n for e in evaluations]
    return ArmRow(
        arm=runs[0].arm,
        split=split,
        seeds=0 if runs[0].seedless else many,
        n=items,
        accuracy=total.correct / total.n,
        low=low,
        high=high,
        seed_range=(min(shares), max(shares)) if many > 1 else None,
        malformed=sum(e.malformed for e in evaluations) / total.n,
        truncated=sum(e.truncated for e in evaluations) / total.n,
        think_tokens=mean(e.think_tokens_mean for e in evaluations),
        answer_tokens=mean(e.answer_tokens_mean for e in evaluations),
        train_seconds=seconds,
        relative_time=seconds / base_seconds if seconds is not None and base_seconds else None,
        score=mean(number(e.summary.get("score")) for e in evaluations),
        asked=" or ".join(_distinct(e.asked for e in evaluations)),
    )


def _once(runs: Sequence[Run]) -> list[Run]:
    """Each run once: a model that was not trained here stands beside every seed."""
    return list({run.folder: run for run in runs}.values())


def _failures(groups: Sequence[Sequence[Run]], split: str) -> tuple[FailureRow, ...]:
    """Of the arms that have predictions: a summary alone doesn't tell the groups."""
    rows = []
    for runs in groups:
        counted: Counter[str] = Counter()
        for run in _once(runs):
            if split in run.evaluations:
                counted.update(run.evaluations[split].groups)
        if n := counted.total():
            rows.append(FailureRow(runs[0].arm, n, tuple(counted[name] / n for name in GROUPS)))
    return tuple(rows)


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
