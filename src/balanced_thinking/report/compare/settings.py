"""The settings and provenance of runs, with one column per arm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from balanced_thinking.runs.load import Run
from balanced_thinking.system.text import shorten_text

_LONGEST, _DEEPEST, _MOST_ROWS = 2_000, 10, 1_000  # characters of a value, levels of keys, keys


@dataclass(frozen=True)
class ValueRow:
    """One key, and for each arm the distinct values that its runs have for it."""

    key: str
    values: tuple[tuple[str, ...], ...]

    @property
    def differs(self) -> bool:
        return len(set(self.values)) > 1


def value_rows(groups: Sequence[Sequence[Run]], pick: Callable[[Run], Mapping[str, Any]]) -> tuple[ValueRow, ...]:
    """One row for each key of the mappings that `pick` returns, nested keys as `a.b`. `groups` are the arms' runs."""
    flat = [[dict(_flatten_mapping(pick(run))) for run in runs] for runs in groups]
    keys = list(dict.fromkeys(key for runs in flat for run in runs for key in run))[:_MOST_ROWS]
    return tuple(
        ValueRow(key, tuple(_distinct_values(run.get(key, "") for run in runs) for runs in flat)) for key in keys
    )


def _flatten_mapping(mapping: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in mapping.items():
        name = shorten_text(f"{prefix}{key}", _LONGEST)
        if isinstance(value, dict) and value and name.count(".") < _DEEPEST:
            yield from _flatten_mapping(value, f"{name}.")
        else:
            yield name, "" if value is None else _describe_value(value)


def _describe_value(value: Any) -> str:
    """A value of a stranger's file may be of any depth and length."""
    try:
        return shorten_text(str(value), _LONGEST)
    except (RecursionError, ValueError):  # an integer of 5,000 digits cannot be written
        return f"a {type(value).__name__} that cannot be shown"


def _distinct_values(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for value in values if value))
