"""Reading a study's YAML: its sections, then a check of everything that its plan refers to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import yaml

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.layers import (
    MERGED_FROM,
    Paths,
    as_paths,
    is_overlay,
    merge_mappings,
    read_config_files,
    take_sources,
)
from balanced_thinking.config.names import did_you_mean
from balanced_thinking.config.own_functions import search_beside_recipe
from balanced_thinking.config.types import check_keys, format_value, typed_arguments
from balanced_thinking.evaluation.benchmarks import check_benchmarks
from balanced_thinking.evaluation.recipe import EvaluationRecipe
from balanced_thinking.study.other_data import other_data
from balanced_thinking.study.plan import ArmPair, Study
from balanced_thinking.training.recipe import STAGES

_SECTIONS = ("arms", "evaluate", "stages", "settings")
_MOST_SEED = 2**32 - 1  # of NumPy
_FOLDER = re.compile(r"(?!\.)[\w.+=-]+")


def load_study(paths: Paths, data: Sequence[str] = (), test_data: Sequence[str] = ()) -> Study:
    """The study in a YAML file, or in several of which later ones override earlier ones key by key.

    `data` takes the place of the training data of every stage, and `test_data` that of what is evaluated
    (`other_data`). Raises RecipeError for what is missing, for unknown keys and names, and for arms that start from
    each other.
    """
    files = read_config_files(paths, "study", "recipes/world/study.yaml", _check_file_keys)
    recorded = any(MERGED_FROM in file.values for file in files)
    sources = take_sources(files)
    raw: dict[str, Any] = {}
    for file in files:
        raw = merge_mappings(raw, file.values)
    for file in files:
        search_beside_recipe(raw, file.path)
    if recorded or len(files) > 1:
        raw[MERGED_FROM] = sources
    where = " with ".join(str(path) for path in as_paths(paths))
    return make_study(other_data(raw, data, test_data, where), where)


def _check_file_keys(values: dict[str, Any], where: str) -> None:
    check_keys(values, (f.name for f in fields(Study)), where)


def make_study(raw: Any, where: str = "the study") -> Study:
    """A study from a mapping; raises as `load_study` does."""
    if not isinstance(raw, Mapping):
        raise RecipeError(f"{where} holds {type(raw).__name__}; expected a mapping with arms and evaluate")
    check_keys(raw, (f.name for f in fields(Study)), where)
    if is_overlay(raw):
        raise RecipeError(f"{where} is an overlay, which lacks arms and evaluate; put a study before it")
    for key in ("arms", "evaluate"):
        if not isinstance(raw.get(key), Mapping) or not raw[key]:
            raise RecipeError(
                f"{where} has no {key}, or {key} is not a mapping; write `{key}:` with at least one entry below it"
            )
    sections = {key: _read_section(raw[key], f"{where}: {key}") for key in _SECTIONS if key in raw}
    for kind in ("arms", "settings"):
        for name in sections.get(kind, {}):
            _check_folder_name(name, f"{where}: {kind}")
    _turn_arm_names_into_text(sections, where)
    for name, varied in sections.get("settings", {}).items():
        if "seeds" in varied:
            _read_seeds(varied, f"{where}, setting {name!r}")
    study = Study(
        **sections,
        seeds=_read_seeds(raw, where),
        contrasts=_read_contrasts(raw, where),
        margin=_read_margin(raw, where),
        dtype=typed_arguments(EvaluationRecipe, {"dtype": raw.get("dtype", "auto")}, where)["dtype"],
        merged_from=_read_merged_from(raw, where),
    )
    _check_study(study, where)
    return study


def to_yaml(study: Study) -> str:
    """The study as YAML; `make_study` reads the same study back."""
    return yaml.safe_dump(_tuples_to_lists(asdict(study)), sort_keys=False)


def _tuples_to_lists(value: Any) -> Any:
    """Tuples as lists, so that YAML needs no tags."""
    if isinstance(value, dict):
        return {key: _tuples_to_lists(item) for key, item in value.items()}
    return [_tuples_to_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def _read_section(value: Any, where: str) -> dict[str, Any]:
    """A mapping of mappings. An entry without a value counts as an empty mapping."""
    for name, inner in [("", value), *(value.items() if isinstance(value, Mapping) else ())]:
        if not isinstance(inner, Mapping | None):
            raise RecipeError(f"{where}{name and f': {name}'} is {inner!r}; expected a mapping")
    return {_require_name_as_text(name, where): dict(inner or {}) for name, inner in (value or {}).items()}


def _require_name_as_text(name: Any, where: str) -> str:
    """A name as text: YAML reads `40` as a number, and `on` as true."""
    if isinstance(name, bool) or not isinstance(name, str | int | float):
        raise RecipeError(
            f"{where}: found {name!r}; expected a name as text; write it in quotes (YAML reads `on` as true)"
        )
    return str(name)


def _check_folder_name(name: str, where: str) -> None:
    if not _FOLDER.fullmatch(name):
        raise RecipeError(
            f"{where}: {name!r} cannot name a folder; expected letters, digits and any of _ . + = - (no . at the start)"
        )


def _turn_arm_names_into_text(sections: Mapping[str, dict[str, Any]], where: str) -> None:
    """Turn every arm name into text, in place, so that `after: 10` finds the arm `10`."""
    for own in sections["arms"].values():
        if own.get("after") is not None:
            own["after"] = _require_name_as_text(own["after"], f"{where}: after")
    for varied in sections.get("settings", {}).values():
        if isinstance(varied.get("arms"), list | tuple):
            varied["arms"] = [_require_name_as_text(arm, f"{where}: arms of a setting") for arm in varied["arms"]]


def _read_seeds(raw: Mapping[str, Any], where: str) -> tuple[int, ...]:
    seeds = raw.get("seeds", [0, 1, 2])
    valid = isinstance(seeds, list | tuple) and all(type(seed) is int and 0 <= seed <= _MOST_SEED for seed in seeds)
    if not valid or not seeds or len(set(seeds)) < len(seeds):
        raise RecipeError(
            f"{where}: seeds is {format_value(seeds)}; expected different integers of 0 or more and at "
            f"most {_MOST_SEED}, such as [0, 1, 2]"
        )
    return tuple(seeds)


def _read_contrasts(raw: Mapping[str, Any], where: str) -> tuple[ArmPair, ...]:
    contrasts = raw.get("contrasts") or []
    if not isinstance(contrasts, list | tuple) or not all(
        isinstance(p, list | tuple) and len(p) == 2 for p in contrasts
    ):
        raise RecipeError(f"{where}: contrasts is {contrasts!r}; expected pairs such as [[scale-sft, sft]]")
    return tuple(ArmPair(str(arm), str(base)) for arm, base in contrasts)


def _read_margin(raw: Mapping[str, Any], where: str) -> float:
    margin = raw.get("margin", 1.0)
    if not isinstance(margin, int | float) or isinstance(margin, bool) or not 0 < margin < 100:
        raise RecipeError(f"{where}: margin is {margin!r}; expected points above 0 and below 100, such as 1.0")
    return float(margin)


def _read_merged_from(raw: Mapping[str, Any], where: str) -> tuple[str, ...]:
    files = raw.get(MERGED_FROM, [])
    if not isinstance(files, list | tuple) or not all(isinstance(file, str) for file in files):
        raise RecipeError(f"{where}: {MERGED_FROM} is {format_value(files)}; expected a list of files, or leave it out")
    return tuple(files)


def _check_study(study: Study, where: str) -> None:
    for arm, own in study.arms.items():
        for key, known in (("stage", STAGES), ("after", study.arms)):
            name = (own or {}).get(key)
            if name is not None and name not in known:
                hint = did_you_mean(str(name), known)
                raise RecipeError(f"{where}: arm {arm!r} has {key}: {name!r}{hint}; known: {', '.join(known)}")
    check_keys(study.stages, STAGES, f"{where}: stages")
    for name, varied in study.settings.items():
        check_keys(varied, (*STAGES, "evaluate", "arms", "seeds"), f"{where}, setting {name!r}")
        _check_setting_sections(varied, f"{where}, setting {name!r}")
        _check_setting_arms(study.arms, varied.get("arms"), f"{where}, setting {name!r}")
    for pair in study.contrasts:
        if pair[0] == pair[1]:
            raise RecipeError(f"{where}: contrast {list(pair)} compares an arm with itself; expected two arms")
        for arm in pair:
            if arm not in study.arms:
                raise RecipeError(
                    f"{where}: contrast {list(pair)} names an unknown arm {arm!r}{did_you_mean(arm, study.arms)}; "
                    "expected two names of `arms`"
                )
    for run in study.planned_runs():
        check_benchmarks(run.benchmarks, where)


def _check_setting_sections(varied: Mapping[str, Any], where: str) -> None:
    """Raises RecipeError unless everything that a setting changes in recipes and benchmarks is a mapping."""
    for stage in STAGES:
        if not isinstance(varied.get(stage), Mapping | None):
            raise RecipeError(f"{where}: {stage} is {varied[stage]!r}; expected a mapping of a recipe's keys")
    _read_section(varied.get("evaluate"), f"{where}: evaluate")


def _check_setting_arms(arms: Mapping[str, Mapping[str, Any]], chosen: Any, where: str) -> None:
    """Raises RecipeError unless a setting's arms exist, and each comes with the arm it starts from."""
    if chosen is None:
        return
    if not isinstance(chosen, list | tuple) or not chosen:
        raise RecipeError(f"{where}: arms is {chosen!r}; expected a list such as [sft, scale-sft], or leave it out")
    for arm in chosen:
        if arm not in arms:
            raise RecipeError(f"{where}: there is no arm {arm!r}{did_you_mean(arm, arms)}")
        if (parent := arms[arm].get("after")) is not None and parent not in chosen:
            raise RecipeError(f"{where}: arm {arm!r} starts from {parent!r}, which the setting leaves out; name both")
