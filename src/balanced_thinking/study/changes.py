"""What may change in a study that has begun: everything that no finished run or evaluation depends on.

New arms, settings, seeds, benchmarks and splits only add results. Contrasts and margin concern the report alone. Some
keys of a recipe change no result. An arm without a finished run may change in any way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from balanced_thinking.evaluation.benchmarks import Benchmark
from balanced_thinking.runs.directory import is_finished
from balanced_thinking.runs.paths import RunFiles, StudyFiles
from balanced_thinking.study.plan import PlannedRun, Study, planned_chain
from balanced_thinking.training.default_weights import WEIGHTING_OPTIONS
from balanced_thinking.training.recipe import HARMLESS_KEYS, Recipe, describe_changes
from balanced_thinking.training.run_recipe import load_run_recipe

# The paths of model and data differ after a study's folder was moved.
_LOCATIONS = {"model", "data"}


def refused_changes(old: Study, new: Study, root: Path) -> list[str]:
    """What a new plan changes although finished parts of the folder depend on it, one sentence each."""
    runs, now = old.planned_runs(), {run.name: run for run in new.planned_runs()}
    trained = {one.name for run in runs if is_finished(root / run.name) for one in planned_chain(runs, run.name)}
    kept = {(run.arm, run.setting) for run in now.values()}
    found: list[str] = []
    for run in runs:
        other = now.get(run.name)
        files = StudyFiles(root).run(run.name)
        done = [label for label in run.evaluations if files.evaluation(label).summary.is_file()]
        if run.name not in trained and not done:
            continue
        if other is not None:
            found += _training_changes(run, other, files.config.is_file()) if run.name in trained else []
            found += [change for label in done for change in _evaluation_changes(label, run, other)]
        elif (run.arm, run.setting) not in kept:  # a seed may be removed and added again
            found.append(f"{run.title} has finished runs and is no longer part of it")
    found += [change for run in now.values() for change in recipe_changes_of_finished_run(root / run.name, run)]
    return list(dict.fromkeys(found))  # seeds repeat the same changes


def _training_changes(old: PlannedRun, new: PlannedRun, recorded: bool) -> Iterator[str]:
    """`recorded`: whether the run's own recipe exists, which is compared, too."""
    relations = [("stage", old.stage, new.stage), ("after", old.after, new.after)]
    yield from (f"{old.title}: {key} was {was!r} and is {now!r}" for key, was, now in relations if was != now)
    # Defaults have changed: only the run knows what a plan without weights meant.
    ignored = HARMLESS_KEYS | {f"training.{name}" for name in WEIGHTING_OPTIONS if recorded}
    yield from (f"{old.title}: {change}" for change in describe_changes(old.recipe, new.recipe, ignored))


def _evaluation_changes(label: str, old: PlannedRun, new: PlannedRun) -> Iterator[str]:
    if label not in new.evaluations:
        yield f"{old.title} was evaluated on {label}, which is no longer part of it"
        return
    if old.dtype != new.dtype:
        yield f"{old.title}, {label}: dtype was {old.dtype!r} and is {new.dtype!r}"
    before, now = old.evaluations[label][0], new.evaluations[label][0]
    for name in (f.name for f in fields(Benchmark) if f.name not in ("splits", "batch_size")):
        if (was := getattr(before, name)) != (its := getattr(now, name)):
            yield f"{old.title}, {label}: {name} was {was!r} and is {its!r}"


def recipe_changes_of_finished_run(folder: Path, run: PlannedRun) -> list[str]:
    """How the recipe of a finished run differs from the plan's.

    A worker that outlived its study can leave such a run, or a seed that was out of the plan for a time.
    """
    if not is_finished(folder) or not RunFiles(folder).config.is_file():
        return []
    return [f"{run.title}: {change}" for change in _recipe_changes(folder, run.recipe, _LOCATIONS)]


def recipe_changes_of_unfinished_run(folder: Path, run: PlannedRun) -> list[str]:
    """How the recipe of an unfinished run differs from the plan's. With a difference the run cannot continue."""
    if is_finished(folder) or not RunFiles(folder).config.is_file():
        return []
    return list(_recipe_changes(folder, run.recipe, {"model"} if run.after else set()))


def _recipe_changes(folder: Path, recipe: Recipe, ignored: set[str]) -> list[str]:
    return describe_changes(load_run_recipe(RunFiles(folder).config), recipe, HARMLESS_KEYS | ignored)
