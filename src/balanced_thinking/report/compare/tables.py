"""The numbers of one setting: its arms and splits, their order, and what is compared with what."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from balanced_thinking.data.bad_rows import UnknownDataError
from balanced_thinking.data.mixture import describe_data
from balanced_thinking.report.compare.contrasts import Contrast
from balanced_thinking.report.compare.cost import CostRow, describe_missing_parents
from balanced_thinking.report.compare.pairing import RunPair, compare_arms
from balanced_thinking.report.compare.plan import MAIN_SPLIT, Plan
from balanced_thinking.report.compare.rows import (
    ArmRow,
    FailureRow,
    FamilyRow,
    arm_rows,
    failure_rows,
    question_family_rows,
)
from balanced_thinking.report.compare.settings import ValueRow, value_rows
from balanced_thinking.report.compare.troubles import Trouble, find_troubles
from balanced_thinking.runs.evaluations import Evaluation
from balanced_thinking.runs.load import Run
from balanced_thinking.runs.records import BASELINE_ARM, record_values

NO_PLAN = Plan()

Costing = Callable[[Sequence[Sequence[Run]]], tuple[CostRow, ...]]


@dataclass(frozen=True)
class Leader:
    """The most accurate arm of a split, and its contrast with the next. `best` only if it beats every other arm."""

    arm: str
    runner_up: Contrast
    best: bool


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
    config: tuple[ValueRow, ...]
    provenance: tuple[ValueRow, ...]
    notes: tuple[str, ...]
    troubles: tuple[Trouble, ...] = ()

    @property
    def decisive_troubles(self) -> list[str]:
        """What must be cured before a verdict means much."""
        return [trouble.text for trouble in self.troubles if trouble.decisive]


def make_tables(
    runs: Sequence[Run], plan: Plan = NO_PLAN, arms: Sequence[str] = (), costs: Costing | None = None
) -> Tables:
    """The tables of at least one run. `arms` is the order that all settings share. `costs` makes the rows of costs."""
    groups = group_by_arm(runs)
    arms = tuple(arm for arm in arms or order_arms(runs, plan) if arm in groups)
    splits = _order_splits(runs, plan)
    main = splits[0] if splits else None
    notes = [f"{run.label}: {note}" for run in runs for note in run.notes] + describe_missing_parents(runs)
    notes += [note for split in splits for note in _note_incomparable_runs(runs, split)]
    notes += [note for split in splits for note in _note_picture_budgets(runs, split)]
    ordered = [groups[arm] for arm in arms]
    pairs = _pairs_to_compare(groups, arms, plan, notes)
    by_split = {split: compare_arms(pairs, split, plan.margin, notes) for split in splits}
    rows = {split: arm_rows(ordered, split) for split in splits}
    return Tables(
        arms=arms,
        base=arms[0],
        main_split=main,
        contrasts=by_split[main] if main else (),
        by_split=by_split,
        leaders={s: leader for s in splits if (leader := _find_leader(groups, rows[s], s, plan.margin)) is not None},
        splits=rows,
        families=question_family_rows(ordered, main) if main else (),
        failures=failure_rows(ordered, main) if main else (),
        costs=costs(ordered) if costs else (),
        config=value_rows(ordered, _config_values),
        provenance=value_rows(ordered, lambda run: {**_provenance_values(run), **run.hashes}),
        notes=tuple(notes),
        troubles=find_troubles(ordered, splits),
    )


def group_by_arm(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs by arm."""
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.arm].append(run)
    return groups


def order_arms(runs: Sequence[Run], plan: Plan) -> tuple[str, ...]:
    """The baseline, then the arms in the study's order, then others by name."""
    groups = group_by_arm(runs)
    base, rank = _find_baseline(groups), {arm: place for place, arm in enumerate(plan.arms)}
    return (base, *sorted(groups.keys() - {base}, key=lambda arm: (rank.get(arm, len(rank)), arm)))


def _order_splits(runs: Sequence[Run], plan: Plan) -> list[str]:
    """The result folders: in the order of the study's benchmarks, then what most arms have, then test splits, then
    others by name."""
    # From the summaries, because a folder's name depends on the directory in which the study was started.
    planned = {pair: place for place, pair in enumerate(plan.benchmarks)}
    ranks: dict[str, int] = {}
    for name, found in ((name, found) for run in runs for name, found in run.evaluations.items()):
        rank = planned.get((found.summary.data, found.summary.split) if found.summary else ("", ""), len(planned))
        ranks[name] = min(rank, ranks.get(name, rank))
    arms = {name: len({run.arm for run in runs if name in run.evaluations}) for name in ranks}
    # A folder is named `<data>-<split>`.
    return sorted(ranks, key=lambda name: (ranks[name], -arms[name], name.rpartition("-")[2] != MAIN_SPLIT, name))


def _pairs_to_compare(
    groups: Mapping[str, Sequence[Run]], arms: Sequence[str], plan: Plan, notes: list[str]
) -> list[RunPair]:
    """The study's contrasts, or every arm against the baseline where there is no study."""
    named = plan.contrasts or tuple((arm, arms[0]) for arm in arms[1:])
    absent = [f"{arm} with {base}" for arm, base in named if arm not in groups or base not in groups]
    if absent:
        notes.append(f"contrasts of the study without runs of both arms: {'; '.join(absent)}")
    return [RunPair(groups[arm], groups[base]) for arm, base in named if arm in groups and base in groups]


def _find_leader(
    groups: Mapping[str, Sequence[Run]], rows: Sequence[ArmRow], split: str, margin: float | None
) -> Leader | None:
    """The most accurate arm of the split, compared with every other. p is adjusted over these comparisons."""
    first, *others = [row.arm for row in sorted(rows, key=lambda row: -row.accuracy)] or [""]
    contrasts = compare_arms([RunPair(groups[first], groups[arm]) for arm in others], split, margin, [])
    if not contrasts or contrasts[0].base != others[0]:
        return None
    best = len(contrasts) == len(others) and all(c.is_significant and c.points > 0 for c in contrasts)
    return Leader(first, contrasts[0], best)


def _find_baseline(groups: Mapping[str, Sequence[Run]]) -> str:
    """The arm `sft`; or else one with uniform weights that starts from no other arm; or else the first by name. An arm
    that was not evaluated is the baseline only where none was: nothing could be compared with it."""
    evaluated = {arm: runs for arm, runs in groups.items() if any(run.evaluations for run in runs)}
    groups = evaluated or groups
    plain = {
        arm for arm, runs in groups.items() if _configured_weighting(runs[0]) == "uniform" and runs[0].stage == "sft"
    }
    uniform = iter(sorted(plain))
    return BASELINE_ARM if BASELINE_ARM in groups else next(uniform, min(groups))


def _config_values(run: Run) -> dict[str, Any]:
    """The recipe, with several data sets in one line; as it is where it is not a list of data sets."""
    data = run.config.get("data")
    try:
        return {**run.config, "data": describe_data(data)} if isinstance(data, list) else dict(run.config)
    except UnknownDataError:  # a recipe that was edited, or is a stranger's
        return dict(run.config)


def _provenance_values(run: Run) -> dict[str, Any]:
    values = record_values(run.provenance, keep_empty=False) if run.provenance else {}
    return {name: value for name, value in values.items() if name != "schema"}


def _configured_weighting(run: Run) -> object:
    training = run.config.get("training")
    return training.get("weighting") if isinstance(training, dict) else None


def _note_incomparable_runs(runs: Sequence[Run], split: str) -> Iterable[str]:
    """Notes on runs that have other data, other items or another protocol on the split: they must not be paired."""
    evaluated = [run for run in runs if split in run.evaluations]
    protocols = [run.evaluations[split].protocol for run in evaluated]
    for what, values in (
        ("the same data", [run.evaluations[split].data_name for run in evaluated]),
        ("the same items", _describe_data_versions([run.evaluations[split] for run in evaluated])),
        *(
            ("the same evaluation settings", [protocol.get(name) for protocol in protocols])
            for name in dict.fromkeys(name for protocol in protocols for name in protocol)
        ),
    ):
        labels: dict[str, list[str]] = defaultdict(list)
        for run, value in zip(evaluated, values, strict=True):
            if value is not None:
                labels[value].append(run.label)
        if len(labels) > 1:
            found = "; ".join(f"{value} ({', '.join(named)})" for value, named in labels.items())
            yield f"{split}: the runs do not have {what}: {found}; only runs that agree are compared item by item"


def _note_picture_budgets(runs: Sequence[Run], split: str) -> Iterable[str]:
    """A note where the image processors of the runs made pictures of different sizes. Such runs are still paired."""
    evaluated = [(run.label, found.summary) for run in runs if (found := run.evaluations.get(split)) is not None]
    budgets = [(label, summary.picture_budget) for label, summary in evaluated if summary and summary.picture_budget]

    def describe_setting(name: str, budget: Mapping[str, Any]) -> str:
        return f"{name} {json.dumps(budget.get(name), sort_keys=True)}"

    names = dict.fromkeys(name for _, budget in budgets for name in budget)
    differing = [name for name in names if len({describe_setting(name, budget) for _, budget in budgets}) > 1]
    if differing:
        labels: dict[str, list[str]] = defaultdict(list)
        for label, budget in budgets:
            labels[", ".join(describe_setting(name, budget) for name in differing)].append(label)
        sizes = "; ".join(f"{text} ({', '.join(named)})" for text, named in labels.items())
        yield (
            f"{split}: the runs did not see pictures of the same size: {sizes}. Evaluate the base with the "
            "--image_options of the runs beside it"
        )


def _describe_data_versions(evaluations: Sequence[Evaluation]) -> list[str | None]:
    """For each evaluation the version of its data, described for a note; None where items have no digests.

    Two versions differ in the question, answer, options or picture of at least one id.
    """
    firsts: list[Evaluation] = []
    found: list[str | None] = []
    for evaluation in evaluations:
        place = next((i for i, first in enumerate(firsts) if not first.count_conflicting_ids(evaluation)), len(firsts))
        if place == len(firsts):
            firsts.append(evaluation)
        differing = firsts[0].count_conflicting_ids(evaluation)
        n = len(evaluation.digests)
        other = f", where {differing} of {n} items have another question, answer, option or picture"
        found.append(f"version {place + 1}{other * bool(differing)}" if n else None)
    return found
