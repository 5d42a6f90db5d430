"""Several YAML files as one: later files override earlier ones, key by key. No torch.

A file that has `stages` alone, with keys of a recipe for `sft` and `grpo`, is an overlay: it changes a recipe, a
study, or both, and is none of them by itself.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.types import format_value
from balanced_thinking.config.yaml import read_yaml_file

logger = logging.getLogger(__name__)
MERGED_FROM = "merged_from"  # the key under which a recipe or a study records its files
STAGES_KEY = "stages"
Paths = str | Path | Sequence[str | Path]


class ConfigFile(NamedTuple):
    """A file that was read, and the mapping in it."""

    path: Path
    values: dict[str, Any]


def as_paths(paths: Paths) -> list[Path]:
    """One path or several, as a list."""
    return [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]


def merge_mappings(defaults: Mapping[str, Any], overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """`defaults` with the values of `overrides`, merged mapping by mapping. Neither is changed."""
    result = copy.deepcopy(dict(defaults))
    for key, value in (overrides or {}).items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merge_mappings(result[key], value) if both else copy.deepcopy(value)
    return result


def read_config_files(
    paths: Paths, kind: str, example: str, check: Callable[[dict[str, Any], str], None]
) -> list[ConfigFile]:
    """The files in their order, each with its mapping.

    `kind` is what messages call a file, `example` is one that is shipped, and `check` refuses the keys of one file.
    Raises RecipeError for a file that is not there, is not valid YAML, or holds anything but a mapping.
    """
    found = [ConfigFile(path, _read_mapping(path, kind, example)) for path in as_paths(paths)]
    for file in found:
        check(file.values, f"the {kind} {file.path}")
    return found


def take_sources(files: Sequence[ConfigFile]) -> list[str]:
    """The files that a recipe comes from. What a run or a study has recorded of its own is taken out of its values."""
    sources: list[str] = []
    for file in files:
        recorded = file.values.pop(MERGED_FROM, None)
        sources += [str(one) for one in recorded] if isinstance(recorded, list) else [str(file.path)]
    return sources


def is_overlay(values: Mapping[str, Any]) -> bool:
    """Whether a file has `stages` alone."""
    return set(values) == {STAGES_KEY}


def _read_mapping(path: Path, kind: str, example: str) -> dict[str, Any]:
    file = _find_shipped(path) or path
    if not file.is_file():
        raise RecipeError(f"there is no {kind} {path}; expected a YAML file such as {example}")
    raw = read_yaml_file(file, f"the {kind} {path}") or {}
    if not isinstance(raw, dict):
        raise RecipeError(f"the {kind} {path} holds {format_value(raw)}; expected a mapping of keys to values")
    return raw


def _find_shipped(path: Path) -> Path | None:
    """The file of this package for `recipes/...` that is not here; None for any other path."""
    shipped = Path(__file__).parents[1] / path
    if path.is_file() or path.parts[:1] != ("recipes",) or not shipped.is_file():
        return None
    logger.info("there is no %s here; the one in the installed package is used", path)
    return shipped
