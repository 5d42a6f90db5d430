"""How long the missing parts of a study will take. The estimate uses finished parts of the same kind only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any, NamedTuple

from balanced_thinking.runs.records import LedgerEntry
from balanced_thinking.study.plan import PlannedRun, planned_chain

_FIRST = (
    "no estimate yet, because no part of this kind has finished: run the study with one seed first (seeds: [0]), "
    "then with all of them in the same folder"
)


class PartKind(NamedTuple):
    """`key` is the same for parts that take equally long per step. `steps` is 1 where a part trains no given number."""

    key: str
    steps: int


def describe_time_left(
    runs: Sequence[PlannedRun], missing: Mapping[str, Sequence[str]], rows: Iterable[LedgerEntry], jobs: int
) -> str:
    """One line on how long the `missing` parts (by run name) take. `rows` are the ledger's."""
    kinds = _PartKinds(runs)
    seconds_per_step: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.run in kinds.runs and row.wall_seconds is not None:  # a seed may have been removed from the plan
            kind = kinds.kind_of(row.run, row.part)
            seconds_per_step[kind.key].append(row.wall_seconds / kind.steps)
    wanted = [kinds.kind_of(name, part) for name, parts in missing.items() for part in parts]
    known = [kind.steps * median(seconds_per_step[kind.key]) for kind in wanted if kind.key in seconds_per_step]
    if not known:
        return _FIRST
    minutes = sum(known) / jobs / 60
    estimate = f"about {minutes:.0f} minutes to go" if minutes >= 10 else f"about {minutes:.1f} minutes to go"
    unknown = len(wanted) - len(known)
    if not unknown:
        return estimate
    return f"at least {estimate}, {unknown} {'part' if unknown == 1 else 'parts'} of unknown length"


class _PartKinds:
    """Which parts of a study's runs take equally long; a training is measured per step."""

    def __init__(self, runs: Sequence[PlannedRun]) -> None:
        self.runs = {run.name: run for run in runs}

    def kind_of(self, name: str, part: str) -> PartKind:
        """The kind of a run's part, which all seeds share."""
        run = self.runs[name]
        steps = _planned_steps(run) if part == "train" else 0
        used = [one for one in run.benchmarks if part in [one.folder_name(split) for split in one.splits]]
        *before, own = planned_chain(list(self.runs.values()), name)
        recipes = [_recipe_without_seeds(one, any_steps=False) for one in before]
        recipes.append(_recipe_without_seeds(own, any_steps=steps > 0))
        return PartKind(repr((part, steps > 0, recipes, used)), steps or 1)


def _planned_steps(run: PlannedRun) -> int:
    """The optimizer steps that the recipe gives, 0 where it gives none."""
    steps = run.recipe.training.get("max_steps")
    try:
        return max(0, int(float(steps or 0)))
    except (TypeError, ValueError):  # which the check of the recipe names
        return 0


def _recipe_without_seeds(run: PlannedRun, *, any_steps: bool) -> dict[str, Any]:
    """The recipe without its seeds. With `any_steps` also without its steps and the number of samples they are taken
    from."""
    recipe = asdict(run.recipe)
    left_out = (("training", "max_steps"), ("data_options", "n")) if any_steps else ()
    for section, key in (("training", "seed"), ("data_options", "seed"), *left_out):
        recipe[section].pop(key, None)
    return recipe
