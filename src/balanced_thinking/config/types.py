"""Check values from YAML against the types that a dataclass's fields allow. No torch."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from functools import cache
from typing import Any

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.names import did_you_mean

# The types that YAML can give, as messages call them, and examples of how to write them.
_TYPE_NAMES = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "text",
    dict: "a mapping",
    list: "a list",
    types.NoneType: "null",
}
_EXAMPLES = {dict: "'{key: value}'", list: "'[a, b]'"}
_LONGEST = 500  # characters of a value that a message shows
_MOST_SHOWN = 15  # choices that a message lists
_EXPONENT = re.compile(r"[-+]?\d+(?:\.\d*)?[eE][-+]?\d+")
_NUMBER_PLACE = re.compile(r"\[number of \w+\]")
_COMMAS = re.compile(r"[\w.-]+(?:\s*,\s*[\w.-]+)+")

# What a field allows: types, `Choices`, and the names of types that only their library can check.
AdmittedTypes = set[Any]


@dataclass(frozen=True)
class Choices:
    """The values of an enumeration or a Literal."""

    values: tuple[Any, ...]


def check_keys(
    mapping: Mapping[str, Any], known: typing.Iterable[str], where: str, synonyms: Mapping[str, str] | None = None
) -> None:
    """Raise RecipeError for unknown keys, each with the known key that `did_you_mean` suggests."""
    known = sorted(known)
    found = [f"{key!r}{did_you_mean(str(key), known, synonyms)}" for key in mapping if key not in known]
    if len(found) == 1:
        raise RecipeError(f"{where} has the unknown key {found[0]}")
    if found:
        raise RecipeError("\n    ".join([f"{where} has {len(found)} unknown keys:", *found]))


def typed_arguments(schema: type, values: Mapping[str, Any], where: str = "the training section") -> dict[str, Any]:
    """`values` checked against a dataclass's fields. Numbers that YAML reads as text (`1e-4`) become numbers.

    Raises RecipeError for an unknown key and for a value of another type than the field's annotation.
    """
    return convert_values(values, admitted_types(schema), where)


def convert_values(
    values: Mapping[str, Any],
    admitted: Mapping[str, AdmittedTypes],
    where: str,
    synonyms: Mapping[str, str] | None = None,
    prefix: str = "",
) -> dict[str, Any]:
    """`values` checked against the types of each name. Messages write `prefix` before a name."""
    check_keys(values, admitted, where, synonyms)
    return {name: convert_value(f"{prefix}{name}", value, admitted[name]) for name, value in values.items()}


@cache  # a study reads every recipe again
def admitted_types(schema: type) -> dict[str, AdmittedTypes]:
    """The types of each field in the constructor of an imported dataclass."""
    hints = typing.get_type_hints(schema)
    return {f.name: _annotation_types(hints[f.name]) for f in fields(schema) if f.init}


def _annotation_types(hint: Any) -> AdmittedTypes:
    """The types of a union, without their arguments: {dict, NoneType} for `dict[str, int] | None`."""
    is_union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    return drop_redundant_str(_type_or_choices(kind) for kind in (typing.get_args(hint) if is_union else (hint,)))


def _type_or_choices(hint: Any) -> Any:
    if typing.get_origin(hint) is typing.Literal:
        return Choices(typing.get_args(hint))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return Choices(tuple(member.value for member in hint))
    return typing.get_origin(hint) or hint


def drop_redundant_str(kinds: typing.Iterable[Any]) -> AdmittedTypes:
    """Drop `str` if there are also choices of texts, because it then means one of these and not any text."""
    kinds = set(kinds)
    texts = any(isinstance(value, str) for kind in kinds if isinstance(kind, Choices) for value in kind.values)
    return kinds - {str} if texts else kinds


def convert_value(name: str, value: Any, kinds: AdmittedTypes) -> Any:
    """The value as one of the types. Raises RecipeError if it fits none; an unknown type accepts any value."""
    choices = [one for kind in kinds if isinstance(kind, Choices) for one in kind.values]
    if isinstance(value, Mapping) and dict in kinds and name.endswith("kwargs"):
        return {key: _read_number(one) for key, one in value.items()}
    if isinstance(value, bool) and not {bool, value} & {*kinds, *choices} and (str in kinds or "no" in choices):
        value = "yes" if value else "no"  # YAML reads `save_strategy: no` as false
    if type(value) in kinds - {str} or _is_choice(value, choices):
        return value
    if isinstance(value, str) and list in kinds and _COMMAS.fullmatch(value):
        return [_parse_item(item.strip()) for item in value.split(",")]
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        for kind in (int, float):
            if kind in kinds and (number := _parse_number(value, kind)) is not None:
                return number
    if type(value) in kinds or not all(kind in _TYPE_NAMES or isinstance(kind, Choices) for kind in kinds):
        return value
    raise RecipeError(f"{name} is {format_value(value)}{_describe_expected(value, kinds, choices)}")


def _is_choice(value: Any, choices: list[Any]) -> bool:
    """Whether it is one of the values; PEFT writes `[number of iters]` in a text where a number stands."""
    if value in choices:
        return True
    patterns = [_NUMBER_PLACE.split(one) for one in choices if isinstance(one, str) and _NUMBER_PLACE.search(one)]
    expressions = [r"[1-9]\d{0,5}".join(map(re.escape, parts)) for parts in patterns]
    return isinstance(value, str) and any(re.fullmatch(one, value) for one in expressions)


def _describe_expected(value: Any, kinds: AdmittedTypes, choices: list[Any]) -> str:
    if choices and isinstance(value, str):
        known = [str(one) for one in choices]
        shown = f"; known: {', '.join(known)}" if len(known) <= _MOST_SHOWN else ""
        return f"{did_you_mean(value, known)}{shown}"
    names = [text for kind, text in _TYPE_NAMES.items() if kind in kinds] + [str(one) for one in choices[:_MOST_SHOWN]]
    fix = ": put it in quotes" if str in kinds else ""
    example = next((f", such as {text}" for kind, text in _EXAMPLES.items() if kind in kinds), "")
    return f"; expected {' or '.join(names)}{fix or example}"


def _read_number(value: Any) -> Any:
    """A value in a mapping; `1e-6`, which YAML reads as text, is a number. A decimal point alone may be a version."""
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


def _parse_item(text: str) -> Any:
    """An item of a list that is written with commas and without brackets."""
    return int(text) if text.isdecimal() and len(text) < _LONGEST else text


def _parse_number(value: float | str, kind: type[int] | type[float]) -> float | None:
    """The value as a number of this type (`1e3` is an integer); None if it is not one."""
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    if kind is float:
        return number
    return int(number) if number.is_integer() else None


def format_value(value: Any) -> str:
    """A value as YAML writes it: true, 'ten', 5; "empty" for null."""
    if value is None or isinstance(value, bool):
        return "empty" if value is None else str(value).lower()
    try:
        shown = repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return f"a value with more digits than can be shown ({type(value).__name__})"
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}... ({len(shown):,} characters)"


def as_plain_yaml(value: object) -> str:
    """A value as YAML writes it, with a text as it is: true, ten, 5, null; of an enumeration, its value."""
    value = getattr(value, "value", value)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
