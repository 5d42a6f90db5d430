"""A study on other data than its file names: the user's own in the place of a published set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.layers import merge_mappings
from balanced_thinking.training.recipe import STAGES

_DATA_KEYS = ("splits", "options", "limit")  # keys of a benchmark that belong to its data


def other_data(raw: Mapping[str, Any], data: Sequence[str], test_data: Sequence[str], where: str) -> dict[str, Any]:
    """A study's mapping with `data` in every stage, and evaluated on `test_data` with the options of its first
    benchmark.

    Without `test_data` the study is evaluated on the split `test` of `data`, with the data options of the stage sft.
    Raises RecipeError where the study has no such split: its stages must set `hash_split`, which makes one.
    """
    if not data and not test_data:
        return dict(raw)
    result = dict(raw)
    if data:
        named: Any = data[0] if len(data) == 1 else list(data)
        result = merge_mappings(result, {"stages": {stage: {"data": named} for stage in STAGES}})
    options = _data_options(result)
    if not test_data and not options.get("hash_split"):
        raise RecipeError(
            f"{where} does not say which rows of {', '.join(data)} are for evaluating; name others with --test-data, "
            "or set data_options: {hash_split: true} in its stages"
        )
    shared = _shared_options(raw.get("evaluate"))
    own = {} if test_data else {"splits": ["test"], "options": options}
    result["evaluate"] = dict.fromkeys(test_data or data, shared | own)
    return result


def _data_options(raw: Mapping[str, Any]) -> dict[str, Any]:
    stage = raw["stages"].get("sft") if isinstance(raw.get("stages"), Mapping) else None
    options = stage.get("data_options") if isinstance(stage, Mapping) else None
    return dict(options) if isinstance(options, Mapping) else {}


def _shared_options(evaluate: Any) -> dict[str, Any]:
    """How the first benchmark is asked and scored, without what belongs to its data."""
    first = next(iter(evaluate.values()), None) if isinstance(evaluate, Mapping) else None
    known = first if isinstance(first, Mapping) else {}
    return {key: value for key, value in known.items() if key not in _DATA_KEYS}
