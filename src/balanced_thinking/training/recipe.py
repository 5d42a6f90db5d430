"""A training run's recipe: what to train, on what, and any training argument; from YAML and the command line.

Reading one needs no torch. The keys under `training` are those of `ScaleSFTConfig`, checked when the run starts.
"""

from __future__ import annotations

import os
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from balanced_thinking.names import nearest


class RecipeError(ValueError):
    """A recipe or option that cannot be used; the message says which and what is expected."""


@dataclass
class Recipe:
    """One training run.

    model: `world-base`, `tiny:<architecture>`, a checkpoint's folder or a hub name.
    data, split, data_options, limit, on_bad_row: what `load_data` takes; `on_bad_row` is `error` or `drop`.
    validation_split, validation_options: the data of the evaluation loss; none where the split is null.
    lora: arguments of PEFT's `LoraConfig`; full fine-tuning where it is null.
    model_size: widths of a `tiny:` model. model_options: arguments of `from_pretrained`.
    arm: the run's name in tables. training: arguments of `ScaleSFTConfig`.
    """

    model: str = "world-base"
    data: str = "world"
    split: str = "train"
    data_options: dict[str, Any] = field(default_factory=dict)
    limit: int | None = None
    on_bad_row: str = "error"
    validation_split: str | None = None
    validation_options: dict[str, Any] = field(default_factory=dict)
    lora: dict[str, Any] | None = None
    model_size: dict[str, int] = field(default_factory=dict)
    model_options: dict[str, Any] = field(default_factory=dict)
    arm: str | None = None
    training: dict[str, Any] = field(default_factory=dict)

    def to_yaml(self) -> str:
        return yaml.safe_dump(asdict(self), sort_keys=False)


def load_recipe(path: str | Path | None, overrides: Sequence[tuple[str, str]] = ()) -> Recipe:
    """The recipe in `path` (or the defaults) with the options of the command line over it.

    An option's name is a key of the recipe (`model`), one of a mapping (`data_options.ratio`), or a training argument.
    """
    raw: dict[str, Any] = {}
    if path is not None:
        if not Path(path).is_file():
            raise RecipeError(f"there is no recipe {path}; expected a YAML file such as recipes/world/scale-sft.yaml")
        raw = yaml.safe_load(Path(path).read_text()) or {}
    known = {f.name for f in fields(Recipe)}
    check_keys(raw, known, f"the recipe {path}")
    recipe = Recipe(**raw)
    for name, text in overrides:
        _override(recipe, name, text, known)
    recipe.model, recipe.data = os.path.expandvars(recipe.model), os.path.expandvars(recipe.data)
    return recipe


def _override(recipe: Recipe, name: str, text: str, known: set[str]) -> None:
    value = yaml.safe_load(text)
    head, _, key = name.partition(".")
    if key and head in known:
        mapping = getattr(recipe, head) or {}
        setattr(recipe, head, {**mapping, key: value})
    elif head in known:
        setattr(recipe, head, value)
    else:
        recipe.training = {**recipe.training, name: value}


def check_keys(mapping: Mapping[str, Any], known: typing.Iterable[str], where: str) -> None:
    """Raise `RecipeError` for the first key that is not known, with the nearest one that is."""
    known = sorted(known)
    for key in mapping:
        if key not in known:
            raise RecipeError(f"{where} has the unknown key {key!r}{nearest(key, known)}")


def typed_arguments(schema: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` checked against a dataclass's fields, with numbers that YAML read as text (`1e-4`) as numbers."""
    hints = typing.get_type_hints(schema)
    names = {f.name for f in fields(schema) if f.init}
    check_keys(values, names, "the training section")
    return {name: _cast(value, hints[name]) for name, value in values.items()}


def _cast(value: Any, hint: Any) -> Any:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) or typing.get_origin(hint) else (hint,)
    if isinstance(value, bool) and bool not in kinds and str in kinds:
        return "yes" if value else "no"  # YAML reads `save_strategy: no` as false
    if isinstance(value, str) and float in kinds and str not in kinds:
        try:
            return float(value)
        except ValueError:
            raise RecipeError(f"{value!r} is not a number") from None
    return value
