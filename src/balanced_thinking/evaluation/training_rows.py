"""Items of an evaluation that the model was trained on: their accuracy says nothing about other rows."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from balanced_thinking.config.errors import BalancedThinkingError
from balanced_thinking.config.yaml import read_yaml_file
from balanced_thinking.data.example import Example
from balanced_thinking.data.load import stream_data
from balanced_thinking.data.mixture import DataPart, list_parts
from balanced_thinking.data.overlap import overlap_keys
from balanced_thinking.data.recorded_places import recorded_place
from balanced_thinking.data.registry import resolve_data
from balanced_thinking.evaluation.benchmarks import Benchmark
from balanced_thinking.evaluation.model import EvaluatedModel, locate_model
from balanced_thinking.runs.chain import follow_parents
from balanced_thinking.system.files import expand_home

logger = logging.getLogger(__name__)


def count_training_rows(model: EvaluatedModel, benchmark: Benchmark, split: str, examples: Sequence[Example]) -> int:
    """How many examples are rows that the model, or a run that it starts from, was trained on; warns of them.

    Only rows of the same data set or file are compared: all of a file, since it may be every split, and of another
    source the same split. 0 for a model without a recipe. `balanced inspect --against` compares different files.
    """
    if not isinstance(benchmark.data, str):
        return 0
    wanted = _source_of(benchmark.data)
    parts = [part for part in _trained_parts(model.config) if _source_of(part.data) == wanted]
    parts = [part for part in parts if part.split == split or (wanted[1] and wanted[1].is_file())]
    owners: dict[object, set[int]] = {}
    for place, example in enumerate(examples if parts else ()):
        for key in overlap_keys(example):
            owners.setdefault(key, set()).add(place)
    seen: set[int] = set()
    for trained in (example for part in parts for example in _read_part(part)):
        seen |= {place for key in overlap_keys(trained) for place in owners.get(key, ())}
        if len(seen) == len(examples):
            break
    found = len(seen)
    if found:
        logger.warning(
            "%s, split %s: %d of %d items are rows that the model was trained on, so their accuracy says nothing about "
            "other rows; evaluate it on data that the training does not have",
            *(benchmark.name, split, found, len(examples)),
        )
    return found


def _trained_parts(config: Path | None) -> Iterator[DataPart]:
    for file in follow_parents(config, _recipe_before) if config else []:
        recipe = _read_recipe(file)
        if recipe.get("data"):
            split, limit, options = recipe.get("split") or "train", recipe.get("limit"), recipe.get("data_options")
            yield from list_parts(recorded_place(recipe["data"], file.parent), split, limit, options)


def _recipe_before(config: Path) -> Path | None:
    """The recipe of the run that this one's model is, if it is one."""
    model = _read_recipe(config).get("model")
    return locate_model(recorded_place(model, config.parent)).config if isinstance(model, str) and model else None


def _read_recipe(config: Path) -> Mapping[str, Any]:
    found = read_yaml_file(config) if config.is_file() else None
    return found if isinstance(found, dict) else {}


def _source_of(data: str) -> tuple[str, Path | None]:
    """The data set's name and its place, if it has one."""
    try:
        found = resolve_data(data)
    except BalancedThinkingError:  # it was there when the run began
        return data, None
    return found.dataset, expand_home(found.path).resolve() if found.path else None


def _read_part(part: DataPart) -> Iterator[Example]:
    """Its good rows, as far as they can be read: since the training a file may have changed."""
    try:
        yield from stream_data(
            part.data, split=part.split, limit=part.limit, on_bad_row="drop", options=part.options or None
        )
    except BalancedThinkingError as error:
        logger.warning("%s could not be compared with what the model was trained on: %s", part.data, error)
