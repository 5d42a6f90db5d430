"""A study's plan: arms x settings x seeds as runs. Each run has its resolved recipe; parents come before children.

    stages:   {sft: {...}, grpo: {...}}            what every run of a stage shares: keys of a recipe
    arms:     {sft: {...}, sft+grpo: {after: sft, stage: grpo, ...}}
    settings: {ratio-40: {sft: {...}, evaluate: {...}, arms: [sft], seeds: [0]}}     variations (optional), each with
              all arms and seeds, or with those it names
    seeds:    [0, 1, 2]
    evaluate: {world: {splits: [test], options: {n: 400}, max_new_tokens: 264}}
    dtype:    bfloat16                             of the weights in evaluations (optional)

An arm `after` another arm starts from that arm's model, so a shared first stage is trained once. Arms, settings and
seeds name folders. Reading a plan does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.layers import MERGED_FROM, merge_mappings
from balanced_thinking.evaluation.benchmarks import Benchmark, read_benchmarks
from balanced_thinking.runs.chain import follow_parents
from balanced_thinking.training.recipe import Recipe, make_recipe

GENERATED = ("world", "world-text")  # data sets that are drawn from a seed
_NOT_RECIPE_KEYS = ("after", "stage")


class ArmPair(NamedTuple):
    """The names of two arms to compare."""

    arm: str
    base: str


class PlannedEvaluation(NamedTuple):
    """One split of one benchmark."""

    benchmark: Benchmark
    split: str


@dataclass(frozen=True)
class PlannedRun:
    """One run: an arm at a setting with a seed.

    `name` is its folder below the study's. `after` is the name of the run it starts from, `dtype` that of the weights
    when it is evaluated.
    """

    name: str
    arm: str
    setting: str | None
    seed: int
    stage: str
    after: str | None
    recipe: Recipe
    benchmarks: tuple[Benchmark, ...]
    dtype: str = "auto"

    @property
    def title(self) -> str:
        """Its arm and setting for a message, the same for all seeds."""
        return f"arm {self.arm!r}" + (f" at {self.setting!r}" if self.setting else "")

    @property
    def evaluations(self) -> dict[str, PlannedEvaluation]:
        """Its evaluations by the name of their result folder."""
        pairs = (PlannedEvaluation(one, split) for one in self.benchmarks for split in one.splits)
        return {pair.benchmark.folder_name(pair.split): pair for pair in pairs}


@dataclass(frozen=True)
class Study:
    """What a study's YAML says. `margin` (points) and `contrasts` are for its report and are fixed before it is run.
    `dtype` is that of the weights in evaluations, as for `balanced eval`. `merged_from` has the files that it was
    merged from, where there were several."""

    arms: Mapping[str, Mapping[str, Any]]
    evaluate: Mapping[str, Mapping[str, Any]]
    stages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    contrasts: tuple[ArmPair, ...] = ()
    margin: float = 1.0
    dtype: str = "auto"
    merged_from: tuple[str, ...] = ()

    def planned_runs(self) -> list[PlannedRun]:
        """Every run, each after the one it starts from."""
        order = _order_by_parent(self.arms)
        return [
            self._plan_run(arm, setting, seed)
            for setting in self.settings or (None,)
            for seed in self._chosen_by_setting(setting, "seeds", self.seeds)
            for arm in order
            if arm in self._chosen_by_setting(setting, "arms", order)
        ]

    def _chosen_by_setting(self, setting: str | None, key: str, everything: Sequence[Any]) -> Sequence[Any]:
        """The arms or seeds that a setting names; everything where it names none."""
        named = self.settings.get(setting or "", {}).get(key)
        return everything if named is None else named

    def _plan_run(self, arm: str, setting: str | None, seed: int) -> PlannedRun:
        own = self.arms[arm]
        stage, varied = own.get("stage", "sft"), dict(self.settings.get(setting or "", {}))
        layers = (
            self.stages.get(stage, {}),
            varied.get(stage, {}),
            {key: value for key, value in own.items() if key not in _NOT_RECIPE_KEYS},
        )
        values: dict[str, Any] = {}
        for layer in layers:
            values = merge_mappings(values, layer)
        values = merge_mappings({"arm": arm, "stage": stage, "training": {"seed": seed}}, values)
        if _is_generated(values.get("data", "world")):  # each seed has training data of its own
            values = merge_mappings({"data_options": {"seed": seed}}, values)
        if self.merged_from:
            values[MERGED_FROM] = list(self.merged_from)
        parent = own.get("after")
        return PlannedRun(
            name=run_name(setting, arm, seed),
            arm=arm,
            setting=setting,
            seed=seed,
            stage=stage,
            after=None if parent is None else run_name(setting, parent, seed),
            recipe=make_recipe(values, f"arm {arm!r}"),
            benchmarks=tuple(read_benchmarks(merge_mappings(dict(self.evaluate), varied.get("evaluate", {})))),
            dtype=self.dtype,
        )


def _is_generated(data: Any) -> bool:
    """Whether a recipe's `data`, a name or a list of entries, is drawn from a seed only."""
    entries = data if isinstance(data, list) else [data]
    return all((entry.get("data") if isinstance(entry, Mapping) else entry) in GENERATED for entry in entries)


def _order_by_parent(arms: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The arms in the order given, except that each comes after the one it starts from."""
    order: list[str] = []

    def place_after_parent(arm: str, path: tuple[str, ...]) -> None:
        if arm in path:
            raise RecipeError(
                f"the arms {' -> '.join((*path, arm))} start from each other; expected a first arm: remove "
                "`after` from one of them"
            )
        parent = (arms[arm] or {}).get("after")
        if parent is not None:
            place_after_parent(parent, (*path, arm))
        if arm not in order:
            order.append(arm)

    for arm in arms:
        place_after_parent(arm, ())
    return order


def run_name(setting: str | None, arm: str, seed: int) -> str:
    """The run's folder below the study's, such as `ratio-40/sft/seed-0`."""
    return "/".join((*((setting,) if setting else ()), arm, f"seed-{seed}"))


def planned_chain(runs: Sequence[PlannedRun], name: str) -> list[PlannedRun]:
    """The run of this name and those it builds on, the first one first."""
    by_name = {run.name: run for run in runs}
    return follow_parents(by_name[name], lambda run: None if run.after is None else by_name[run.after])
