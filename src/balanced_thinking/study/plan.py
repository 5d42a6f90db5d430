"""A study's plan: arms x settings x seeds as runs, each with its resolved recipe, parents before their children.

    stages:   {sft: {...}, grpo: {...}}            what every run of a stage shares: keys of a recipe
    arms:     {sft: {...}, sft+grpo: {after: sft, stage: grpo, ...}}
    settings: {ratio-40: {sft: {...}, evaluate: {...}, arms: [sft], seeds: [0]}}     variations, each with all arms and
              seeds or those it names; may be left out
    seeds:    [0, 1, 2]
    evaluate: {world: {splits: [test], options: {n: 400}, max_new_tokens: 264}}

An arm `after` another one starts from that one's model, so a shared beginning is trained once. Arms, settings and seeds
name folders. Reading a plan needs no torch.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.names import did_you_mean
from balanced_thinking.config.yaml import check_keys, read_yaml
from balanced_thinking.data.load import result_folder_name
from balanced_thinking.evaluation.benchmarks import Benchmark, check_benchmarks, read_benchmarks
from balanced_thinking.training.recipe import Recipe, make_recipe

STAGES = ("sft", "grpo")
_OWN_KEYS = ("after", "stage")
_SECTIONS = ("arms", "evaluate", "stages", "settings")
_FOLDER = re.compile(r"(?!\.)[\w.+=-]+")


@dataclass(frozen=True)
class Node:
    """One run: an arm at a setting with a seed. `name` is its folder below the study's; `after` the one it starts
    from."""

    name: str
    arm: str
    setting: str | None
    seed: int
    stage: str
    after: str | None
    recipe: Recipe
    benchmarks: tuple[Benchmark, ...]

    @property
    def title(self) -> str:
        """Its arm, whatever the seed, as a message calls it."""
        return f"arm {self.arm!r}" + (f" at {self.setting!r}" if self.setting else "")

    @property
    def evaluations(self) -> dict[str, tuple[Benchmark, str]]:
        """(benchmark, split) of each of its results' folders."""
        return {result_folder_name(one.data, split): (one, split) for one in self.benchmarks for split in one.splits}


@dataclass(frozen=True)
class Study:
    """What a study's YAML says. `margin` (points) and `contrasts` ([arm, baseline] pairs) belong to its report and are
    fixed before it is run."""

    arms: Mapping[str, Mapping[str, Any]]
    evaluate: Mapping[str, Mapping[str, Any]]
    stages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    contrasts: tuple[tuple[str, str], ...] = ()
    margin: float = 1.0

    def nodes(self) -> list[Node]:
        """Every run, a run after the one it starts from."""
        order = _chained(self.arms)
        return [
            self._node(arm, setting, seed)
            for setting in self.settings or (None,)
            for seed in self._chosen(setting, "seeds", self.seeds)
            for arm in order
            if arm in self._chosen(setting, "arms", order)
        ]

    def _chosen(self, setting: str | None, key: str, everything: Sequence[Any]) -> Sequence[Any]:
        """The arms or seeds of a setting: those that it names, else all."""
        named = self.settings.get(setting or "", {}).get(key)
        return everything if named is None else named

    def _node(self, arm: str, setting: str | None, seed: int) -> Node:
        own = self.arms[arm]
        stage, varied = own.get("stage", "sft"), dict(self.settings.get(setting or "", {}))
        layers = (
            self.stages.get(stage, {}),
            varied.get(stage, {}),
            {k: v for k, v in own.items() if k not in _OWN_KEYS},
        )
        values: dict[str, Any] = {}
        for layer in layers:
            values = merged(values, layer)
        values = merged({"arm": arm, "stage": stage, "training": {"seed": seed}}, values)
        if values.get("data", "world") == "world":
            values = merged({"data_options": {"seed": seed}}, values)
        parent = own.get("after")
        return Node(
            name=_name(setting, arm, seed),
            arm=arm,
            setting=setting,
            seed=seed,
            stage=stage,
            after=None if parent is None else _name(setting, parent, seed),
            recipe=make_recipe(values, f"arm {arm!r}"),
            benchmarks=tuple(read_benchmarks(merged(dict(self.evaluate), varied.get("evaluate", {})))),
        )


def load_study(path: str | Path) -> Study:
    """The study in a YAML file. Raises RecipeError for what it lacks, what is unknown, and chains that lead nowhere."""
    if not Path(path).is_file():
        raise RecipeError(f"there is no study {path}; expected a YAML file such as recipes/world/study.yaml")
    return make_study(read_yaml(Path(path).read_bytes(), str(path)), str(path))


def make_study(raw: Any, where: str = "the study") -> Study:
    """A study from a mapping; raises as `load_study` does."""
    if not isinstance(raw, Mapping):
        raise RecipeError(f"{where} holds {type(raw).__name__}; expected a mapping with arms and evaluate")
    check_keys(raw, (f.name for f in fields(Study)), where)
    for key in ("arms", "evaluate"):
        if not isinstance(raw.get(key), Mapping) or not raw[key]:
            raise RecipeError(f"{where} has no {key}; expected a mapping with at least one entry")
    sections = {key: _section(raw[key], f"{where}: {key}") for key in _SECTIONS if key in raw}
    for kind in ("arms", "settings"):
        for name in sections.get(kind, {}):
            _check_folder(name, f"{where}: {kind}")
    _name_arms_by_text(sections, where)
    for name, varied in sections.get("settings", {}).items():
        if "seeds" in varied:
            _seeds(varied, f"{where}, setting {name!r}")
    study = Study(**sections, seeds=_seeds(raw, where), contrasts=_contrasts(raw, where), margin=_margin(raw, where))
    _check(study, where)
    return study


def to_yaml(study: Study) -> str:
    """What `make_study` makes the same study of."""
    return yaml.safe_dump(_plain(asdict(study)), sort_keys=False)


def _plain(value: Any) -> Any:
    """Tuples as lists, so that YAML needs no tags."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _section(value: Any, where: str) -> dict[str, Any]:
    """A mapping of mappings, where nothing at all stands for an empty one."""
    for name, inner in [("it", value), *(value.items() if isinstance(value, Mapping) else ())]:
        if not isinstance(inner, Mapping | None):
            raise RecipeError(f"{where}: {name} is {inner!r}; expected a mapping")
    return {_text(name, where): dict(inner or {}) for name, inner in (value or {}).items()}


def _text(name: Any, where: str) -> str:
    """A name as text: YAML reads `40` as a number, and `on` as true."""
    if isinstance(name, bool) or not isinstance(name, str | int | float):
        raise RecipeError(f"{where}: found {name!r}; expected a name, so quote it")
    return str(name)


def _check_folder(name: str, where: str) -> None:
    if not _FOLDER.fullmatch(name):
        raise RecipeError(
            f"{where}: {name!r} cannot name a folder; expected letters, digits, and any of _ . + = - (no . in front)"
        )


def _name_arms_by_text(sections: Mapping[str, dict[str, Any]], where: str) -> None:
    """Wherever an arm is named it is named as its key is, so that `after: 10` finds the arm `10`."""
    for own in sections["arms"].values():
        if own.get("after") is not None:
            own["after"] = _text(own["after"], f"{where}: after")
    for varied in sections.get("settings", {}).values():
        if isinstance(varied.get("arms"), list | tuple):
            varied["arms"] = [_text(arm, f"{where}: arms of a setting") for arm in varied["arms"]]


def _seeds(raw: Mapping[str, Any], where: str) -> tuple[int, ...]:
    seeds = raw.get("seeds", [0, 1, 2])
    whole = isinstance(seeds, list | tuple) and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not whole or not seeds or len(set(seeds)) < len(seeds):
        raise RecipeError(
            f"{where}: seeds is {seeds!r}; expected different whole numbers of at least 0, such as [0, 1, 2]"
        )
    return tuple(seeds)


def _contrasts(raw: Mapping[str, Any], where: str) -> tuple[tuple[str, str], ...]:
    contrasts = raw.get("contrasts") or []
    if not isinstance(contrasts, list | tuple) or not all(
        isinstance(p, list | tuple) and len(p) == 2 for p in contrasts
    ):
        raise RecipeError(f"{where}: contrasts is {contrasts!r}; expected pairs such as [[scale-sft, sft]]")
    return tuple((str(arm), str(base)) for arm, base in contrasts)


def _margin(raw: Mapping[str, Any], where: str) -> float:
    margin = raw.get("margin", 1.0)
    if not isinstance(margin, int | float) or isinstance(margin, bool) or not 0 < margin < 100:
        raise RecipeError(f"{where}: margin is {margin!r}; expected points of accuracy such as 1.0")
    return float(margin)


def _check(study: Study, where: str) -> None:
    for arm, own in study.arms.items():
        for key, known in (("stage", STAGES), ("after", study.arms)):
            name = (own or {}).get(key)
            if name is not None and name not in known:
                hint = did_you_mean(str(name), known)
                raise RecipeError(f"{where}: arm {arm!r} has {key}: {name!r}{hint}; known: {', '.join(known)}")
    check_keys(study.stages, STAGES, f"{where}: stages")
    for name, varied in study.settings.items():
        check_keys(varied, (*STAGES, "evaluate", "arms", "seeds"), f"{where}, setting {name!r}")
        _check_varied(varied, f"{where}, setting {name!r}")
        _check_chosen(study.arms, varied.get("arms"), f"{where}, setting {name!r}")
    for pair in study.contrasts:
        if pair[0] == pair[1]:
            raise RecipeError(f"{where}: contrast {list(pair)} compares an arm with itself; expected two arms")
        for arm in pair:
            if arm not in study.arms:
                raise RecipeError(f"{where}: contrast {list(pair)} names no arm {arm!r}{did_you_mean(arm, study.arms)}")
    for node in study.nodes():
        check_benchmarks(node.benchmarks, where)


def _check_varied(varied: Mapping[str, Any], where: str) -> None:
    """What a setting lays over recipes and benchmarks is mappings, as they are."""
    for stage in STAGES:
        if not isinstance(varied.get(stage), Mapping | None):
            raise RecipeError(f"{where}: {stage} is {varied[stage]!r}; expected a mapping of a recipe's keys")
    _section(varied.get("evaluate"), f"{where}: evaluate")


def _check_chosen(arms: Mapping[str, Mapping[str, Any]], chosen: Any, where: str) -> None:
    """A setting's arms exist, and none lacks the one that it starts from."""
    if chosen is None:
        return
    if not isinstance(chosen, list | tuple) or not chosen:
        raise RecipeError(f"{where}: arms is {chosen!r}; expected a list such as [sft, scale-sft], or leave it out")
    for arm in chosen:
        if arm not in arms:
            raise RecipeError(f"{where}: there is no arm {arm!r}{did_you_mean(arm, arms)}")
        if (parent := arms[arm].get("after")) is not None and parent not in chosen:
            raise RecipeError(f"{where}: arm {arm!r} starts from {parent!r}, which the setting leaves out; name both")


def _chained(arms: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The arms in their order, each after the one it starts from."""
    order: list[str] = []

    def visit(arm: str, path: tuple[str, ...]) -> None:
        if arm in path:
            raise RecipeError(f"the arms {' -> '.join((*path, arm))} start from each other")
        parent = (arms[arm] or {}).get("after")
        if parent is not None:
            visit(parent, (*path, arm))
        if arm not in order:
            order.append(arm)

    for arm in arms:
        visit(arm, ())
    return order


def merged(under: Mapping[str, Any], over: Mapping[str, Any] | None) -> dict[str, Any]:
    """`over` laid over `under`, mapping by mapping; neither is changed."""
    result = copy.deepcopy(dict(under))
    for key, value in (over or {}).items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


def _name(setting: str | None, arm: str, seed: int) -> str:
    return "/".join((*((setting,) if setting else ()), arm, f"seed-{seed}"))


def chain(nodes: Sequence[Node], name: str) -> list[Node]:
    """The run of this name and those it builds on, first one first."""
    by_name = {node.name: node for node in nodes}
    found = [by_name[name]]
    while found[0].after is not None:
        found.insert(0, by_name[found[0].after])
    return found
