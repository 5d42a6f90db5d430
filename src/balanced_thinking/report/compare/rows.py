"""The rows of a report on one split: arms, failures and question families."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from balanced_thinking.report.compare.cost import chain_train_seconds
from balanced_thinking.runs.evaluations import Evaluation, Tally
from balanced_thinking.runs.load import Run, mean_of_known
from balanced_thinking.runs.outcomes import GROUPS
from balanced_thinking.statistics.intervals import wilson_interval


@dataclass(frozen=True)
class ArmRow:
    """One arm on one split, all its seeds together. Rates and accuracies are shares from 0 to 1, times are seconds.

    `accuracy` is the mean over the seeds, as in a contrast, also where they answered different numbers of items.
    `seeds` is 0 for a model that was not trained here. `n` counts the items of one seed. `low` and `high` are the
    Wilson 95 % interval for `n` items. Seeds answer the same items, so more items would make it too narrow.
    `train_seconds` includes the runs that a run started from. `asked` names the prompts, the scorers, and a dtype other
    than float32. `score` is None where no summary has it.
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
    """One question family: its items per arm and seed, and each arm's accuracy (None without such items)."""

    family: str
    n: int
    accuracies: tuple[float | None, ...]


@dataclass(frozen=True)
class FailureRow:
    """One arm's completions: the share of each of `outcomes.GROUPS`, in that order."""

    arm: str
    n: int
    shares: tuple[float, ...]


def arm_rows(groups: Sequence[Sequence[Run]], split: str) -> tuple[ArmRow, ...]:
    """One row for each arm with results on the split; the first group is the baseline."""
    everything = [run for runs in groups for run in runs]
    seconds = {runs[0].arm: mean_of_known(chain_train_seconds(run, everything) for run in runs) for runs in groups}
    rows = (_arm_row(runs, split, seconds[runs[0].arm], seconds[groups[0][0].arm]) for runs in groups)
    return tuple(row for row in rows if row is not None)


def _arm_row(
    runs: Sequence[Run], split: str, train_seconds: float | None, baseline_seconds: float | None
) -> ArmRow | None:
    evaluations = [e for run in _distinct_runs(runs) if (e := run.evaluations.get(split)) is not None and e.total.n]
    if not evaluations:
        return None
    many, total = len(evaluations), _add_tallies(e.total for e in evaluations)
    items = round(total.n / many)
    shares = [e.total.correct / e.total.n for e in evaluations]
    low, high = wilson_interval(round(fmean(shares) * items), items)
    return ArmRow(
        arm=runs[0].arm,
        split=split,
        seeds=0 if runs[0].is_seedless else many,
        n=items,
        accuracy=fmean(shares),
        low=low,
        high=high,
        seed_range=(min(shares), max(shares)) if many > 1 else None,
        malformed=sum(e.malformed for e in evaluations) / total.n,
        truncated=sum(e.truncated for e in evaluations) / total.n,
        think_tokens=mean_of_known(e.think_tokens_mean for e in evaluations),
        answer_tokens=mean_of_known(e.answer_tokens_mean for e in evaluations),
        train_seconds=train_seconds,
        relative_time=train_seconds / baseline_seconds if train_seconds is not None and baseline_seconds else None,
        score=mean_of_known(e.summary.score for e in evaluations if e.summary is not None),
        asked=" or ".join(dict.fromkeys(e.asked for e in evaluations if e.asked)),
    )


def _distinct_runs(runs: Sequence[Run]) -> list[Run]:
    """Each run once. The list repeats a seedless model for every seed."""
    return list({run.folder: run for run in runs}.values())


def failure_rows(groups: Sequence[Sequence[Run]], split: str) -> tuple[FailureRow, ...]:
    """How the completions of each arm ended. Arms without predictions have no row."""
    rows = []
    for runs in groups:
        counted: Counter[str] = Counter()
        for run in _distinct_runs(runs):
            if split in run.evaluations:
                counted.update(run.evaluations[split].groups)
        if n := counted.total():
            rows.append(FailureRow(runs[0].arm, n, tuple(counted[name] / n for name in GROUPS)))
    return tuple(rows)


def question_family_rows(groups: Sequence[Sequence[Run]], split: str) -> tuple[FamilyRow, ...]:
    """The accuracy of every arm, whose runs are one of `groups`, on each family of questions."""
    evaluations = [[e for run in runs if (e := run.evaluations.get(split)) is not None] for runs in groups]
    names = sorted({name for arm in evaluations for evaluation in arm for name in evaluation.families})
    return tuple(_family_row(name, evaluations) for name in names)


def _family_row(name: str, evaluations: Sequence[Sequence[Evaluation]]) -> FamilyRow:
    totals = [_add_tallies(e.families[name] for e in arm if name in e.families) for arm in evaluations]
    items = max(evaluation.families[name].n for arm in evaluations for evaluation in arm if name in evaluation.families)
    return FamilyRow(name, items, tuple(total.correct / total.n if total.n else None for total in totals))


def _add_tallies(tallies: Iterable[Tally]) -> Tally:
    pooled = Tally()
    for tally in tallies:
        pooled.n, pooled.correct = pooled.n + tally.n, pooled.correct + tally.correct
    return pooled
