"""YAML as typed arguments of a dataclass. Unknown keys and values of another type fail by name; no torch."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import yaml

from balanced_thinking.config.names import did_you_mean

# What YAML can give, and how a message calls it.
_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    dict: "a mapping",
    list: "a list",
    types.NoneType: "null",
}


class RecipeError(ValueError):
    """A recipe or option that cannot be used; the message says which and what is expected."""


class _Once(yaml.SafeLoader):
    """YAML in which a key stands once: the last one would win silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and not key.tag.endswith(":merge")]
        for place, key in enumerate(keys):
            if key.value in (other.value for other in keys[:place]):
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(text: str | bytes, where: str) -> Any:
    """The value of a YAML text, or of a file's bytes, which are UTF-8 whatever the system's own encoding is. Raises
    RecipeError, with line and column, where it is none."""
    try:
        return yaml.load(text, _Once)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or type(error).__name__
        cure = "close what is open, or quote the value"
        if isinstance(error, yaml.reader.ReaderError):
            cure = "expected text in UTF-8 without control characters"
        raise RecipeError(f"{where}{place} is no YAML: {reason}; {cure}") from None


def check_keys(mapping: Mapping[str, Any], known: typing.Iterable[str], where: str) -> None:
    """Raise `RecipeError` for the first key that is not known, with the nearest one that is."""
    known = sorted(known)
    for key in mapping:
        if key not in known:
            raise RecipeError(f"{where} has the unknown key {key!r}{did_you_mean(str(key), known)}")


def typed_arguments(schema: type, values: Mapping[str, Any], where: str = "the training section") -> dict[str, Any]:
    """`values` checked against a dataclass's fields, with numbers that YAML read as text (`1e-4`) as numbers.

    Raises RecipeError for an unknown key, and for a value that is not what the field is annotated to hold.
    """
    hints = typing.get_type_hints(schema)
    names = {f.name for f in fields(schema) if f.init}
    check_keys(values, names, where)
    return {name: _cast(name, value, _kinds(hints[name])) for name, value in values.items()}


def _kinds(hint: Any) -> set[Any]:
    """The types that a hint admits, without their arguments: {dict, NoneType} for `dict[str, int] | None`."""
    is_union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    return {typing.get_origin(kind) or kind for kind in (typing.get_args(hint) if is_union else (hint,))}


def _cast(name: str, value: Any, kinds: set[Any]) -> Any:
    if type(value) in kinds:
        return value
    if isinstance(value, bool) and str in kinds:
        return "yes" if value else "no"  # YAML reads `save_strategy: no` as false
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        for kind in (int, float):
            if kind in kinds and (number := _number(value, kind)) is not None:
                return number
    if kinds <= _KINDS.keys():  # others, such as an enumeration, are checked by their owner
        expected = " or ".join(text for kind, text in _KINDS.items() if kind in kinds)
        cure = ", so quote it" if str in kinds else ""
        raise RecipeError(f"{name} is {_shown(value)}; expected {expected}{cure}")
    return value


def _number(value: float | str, kind: type[int] | type[float]) -> float | None:
    """The value as a number of this kind, `1e3` being whole; None where it is none."""
    try:
        number = float(value)
    except ValueError:
        return None
    if kind is float:
        return number
    return int(number) if number.is_integer() else None


def _shown(value: Any) -> str:
    """As YAML writes it: null, true, 'ten', 5."""
    return "empty" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
