"""YAML -> typed arguments of a dataclass. Errors name the unknown key or the value of a wrong type. No torch."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import yaml

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.names import did_you_mean

# The types that YAML can give, as messages call them.
_TYPE_NAMES = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "text",
    dict: "a mapping",
    list: "a list",
    types.NoneType: "null",
}


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML in which a key occurs once. PyYAML itself silently keeps the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and not key.tag.endswith(":merge")]
        for place, key in enumerate(keys):
            if key.value in (other.value for other in keys[:place]):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} occurs twice", key.start_mark
                )
        return super().construct_mapping(node, deep)


def read_yaml(text: str | bytes, where: str) -> Any:
    """The value of a YAML text, or of a file's bytes, which are read as UTF-8 on every system.

    Raises RecipeError with line and column for text that is not valid YAML.
    """
    try:
        return yaml.load(text, _UniqueKeyLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or type(error).__name__
        fix = "close open brackets and quotes, or quote the value"
        if isinstance(error, yaml.reader.ReaderError):
            fix = "expected text in UTF-8 without control characters"
        raise RecipeError(f"{where}{place} is not valid YAML: {reason}; {fix}") from None


def check_keys(mapping: Mapping[str, Any], known: typing.Iterable[str], where: str) -> None:
    """Raise RecipeError for the first unknown key, with the most similar known one."""
    known = sorted(known)
    for key in mapping:
        if key not in known:
            raise RecipeError(f"{where} has the unknown key {key!r}{did_you_mean(str(key), known)}")


def typed_arguments(schema: type, values: Mapping[str, Any], where: str = "the training section") -> dict[str, Any]:
    """`values` checked against a dataclass's fields. Numbers that YAML reads as text (`1e-4`) become numbers.

    Raises RecipeError for an unknown key and for a value of another type than the field's annotation.
    """
    hints = typing.get_type_hints(schema)
    names = {f.name for f in fields(schema) if f.init}
    check_keys(values, names, where)
    return {name: _convert_value(name, value, _admitted_types(hints[name])) for name, value in values.items()}


def _admitted_types(hint: Any) -> set[Any]:
    """The types that an annotation allows, without their arguments: {dict, NoneType} for `dict[str, int] | None`."""
    is_union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    return {typing.get_origin(kind) or kind for kind in (typing.get_args(hint) if is_union else (hint,))}


def _convert_value(name: str, value: Any, kinds: set[Any]) -> Any:
    if type(value) in kinds:
        return value
    if isinstance(value, bool) and str in kinds:
        return "yes" if value else "no"  # YAML reads `save_strategy: no` as false
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        for kind in (int, float):
            if kind in kinds and (number := _parse_number(value, kind)) is not None:
                return number
    if kinds <= _TYPE_NAMES.keys():  # other types, such as an enumeration, are checked where they are used
        expected = " or ".join(text for kind, text in _TYPE_NAMES.items() if kind in kinds)
        fix = ": put it in quotes" if str in kinds else ""
        raise RecipeError(f"{name} is {_format_value(value)}; expected {expected}{fix}")
    return value


def _parse_number(value: float | str, kind: type[int] | type[float]) -> float | None:
    """The value as a number of this type (`1e3` is an integer); None if it is not one."""
    try:
        number = float(value)
    except ValueError:
        return None
    if kind is float:
        return number
    return int(number) if number.is_integer() else None


def _format_value(value: Any) -> str:
    """A value as YAML writes it: true, 'ten', 5; "empty" for null."""
    return "empty" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
