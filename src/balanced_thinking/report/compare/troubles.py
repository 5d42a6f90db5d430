"""What went wrong in trainings and evaluations, so that their accuracies say more about the settings than the model."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from balanced_thinking.runs.advice import TRAINING_WARNINGS, advise_on_outputs, describe_withheld, withholds_most
from balanced_thinking.runs.evaluations import Evaluation
from balanced_thinking.runs.load import Run

_NOTHING = "nothing_learned"
_LASTING = 0.5  # a warning that held for a smaller share of the logged steps was temporary


@dataclass(frozen=True)
class Trouble:
    """One sentence with its cure. `decisive`: a comparison of accuracies means little before it is cured."""

    text: str
    decisive: bool


def find_troubles(groups: Sequence[Sequence[Run]], splits: Sequence[str]) -> tuple[Trouble, ...]:
    """Of the arms, whose runs are one of `groups`: outputs that were cut off or unreadable, then trainings."""
    places: dict[str, list[str]] = defaultdict(list)
    for split in splits:
        for runs in groups:
            if advice := _advise_on_arm(runs, split):
                places[advice].append(f"{runs[0].arm} on {split}")
    outputs = [Trouble(f"{', '.join(named)}: {advice}.", decisive=True) for advice, named in places.items()]
    outputs += (trouble for split in splits for runs in groups for trouble in _describe_withheld(runs, split))
    trainings = (trouble for runs in groups for run in runs for trouble in _describe_training(run))
    return (*outputs, *dict.fromkeys(trainings))


def _evaluations_of_arm(runs: Sequence[Run], split: str) -> Collection[Evaluation]:
    return {run.folder: run.evaluations[split] for run in runs if split in run.evaluations}.values()


def _describe_withheld(runs: Sequence[Run], split: str) -> Iterator[Trouble]:
    found = _evaluations_of_arm(runs, split)
    n, withheld = sum(e.total.n for e in found), sum((e.withheld for e in found), Counter[str]())
    if said := describe_withheld(n, withheld):
        yield Trouble(f"{runs[0].arm} on {split}: {said}.", decisive=withholds_most(n, withheld))


def _advise_on_arm(runs: Sequence[Run], split: str) -> str:
    found = _evaluations_of_arm(runs, split)
    limits = {e.summary.max_new_tokens for e in found if e.summary is not None}
    return advise_on_outputs(
        sum(e.total.n for e in found),
        sum(e.truncated for e in found),
        sum(e.malformed for e in found),
        next(iter(limits)) if len(limits) == 1 else None,
        withheld=sum(e.withheld.total() for e in found),
    )


def _describe_training(run: Run) -> Iterator[Trouble]:
    steps = {row.step: row.warnings for row in run.metrics}
    counted = Counter(name for names in steps.values() for name in names)
    if _NOTHING in counted:
        yield Trouble(f"{run.label}: {TRAINING_WARNINGS[_NOTHING]}.", decisive=True)
    for name, words in TRAINING_WARNINGS.items():
        lasted = counted[name] >= _LASTING * len(steps) or name in steps.get(max(steps, default=0), ())
        if counted[name] and lasted and name != _NOTHING:
            yield Trouble(f"{run.label}: at {counted[name]} of {len(steps)} logged steps {words}.", decisive=False)
