"""What may change in a study that has begun: all but what its finished runs and evaluations depend on.

More arms, settings, seeds, benchmarks and splits only add to it, contrasts and margin belong to its report, and some
keys change no result. An arm without a finished run may become another one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from balanced_thinking.evaluation.benchmarks import Benchmark
from balanced_thinking.runs.directory import is_finished
from balanced_thinking.runs.paths import RunFiles, StudyFiles
from balanced_thinking.study.plan import Node, Study, chain
from balanced_thinking.training.recipe import MAY_CHANGE, Recipe, changes, load_recipe

# A finished run is trained no further, so the number of its steps is one of its results' conditions.
NO_MATTER = MAY_CHANGE - {"training.max_steps", "training.num_train_epochs"}
# Of a run's own recipe: where a model and data lie may be another place once a study was moved.
_PLACES = {"model", "data"}


def refused(old: Study, new: Study, root: Path) -> list[str]:
    """What differs between two plans for a folder though finished parts depend on it, in words."""
    nodes, now = old.nodes(), {node.name: node for node in new.nodes()}
    trained = {one.name for node in nodes if is_finished(root / node.name) for one in chain(nodes, node.name)}
    kept = {(node.arm, node.setting) for node in now.values()}
    found: list[str] = []
    for node in nodes:
        other = now.get(node.name)
        done = [
            label for label in node.evaluations if StudyFiles(root).run(node.name).evaluation(label).summary.is_file()
        ]
        if node.name not in trained and not done:
            continue
        if other is not None:
            found += _trained(node, other) if node.name in trained else []
            found += [told for label in done for told in _evaluated(label, node, other)]
        elif (node.arm, node.setting) not in kept:  # a seed may come and go
            found.append(f"{node.title} has finished runs and is no longer part of it")
    found += [told for node in now.values() for told in differs_from_its_run(root / node.name, node)]
    return list(dict.fromkeys(found))  # seeds say the same


def _trained(old: Node, new: Node) -> Iterator[str]:
    kin = [("stage", old.stage, new.stage), ("after", old.after, new.after)]
    yield from (f"{old.title}: {key} was {was!r} and is {now!r}" for key, was, now in kin if was != now)
    yield from (f"{old.title}: {told}" for told in changes(old.recipe, new.recipe, NO_MATTER))


def _evaluated(label: str, old: Node, new: Node) -> Iterator[str]:
    if label not in new.evaluations:
        yield f"{old.title} was evaluated on {label}, which is no longer part of it"
        return
    before, now = old.evaluations[label][0], new.evaluations[label][0]
    for name in (f.name for f in fields(Benchmark) if f.name not in ("splits", "batch_size")):
        if (was := getattr(before, name)) != (its := getattr(now, name)):
            yield f"{old.title}, {label}: {name} was {was!r} and is {its!r}"


def differs_from_its_run(folder: Path, node: Node) -> list[str]:
    """Where a finished run was trained with another recipe than the plan has: by a worker that outlived its study, or
    with a seed that was out of the plan for a time."""
    if not is_finished(folder) or not RunFiles(folder).config.is_file():
        return []
    return [f"{node.title}: {told}" for told in _since(folder, node.recipe, _PLACES)]


def begun_otherwise(folder: Path, node: Node) -> list[str]:
    """Where an unfinished run began with another recipe than the plan has now: it cannot go on."""
    if is_finished(folder) or not RunFiles(folder).config.is_file():
        return []
    return list(_since(folder, node.recipe, {"model"} if node.after else set()))


def _since(folder: Path, recipe: Recipe, but: set[str]) -> list[str]:
    return changes(load_recipe(RunFiles(folder).config), recipe, NO_MATTER | but)
