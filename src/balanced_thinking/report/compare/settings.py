"""The settings and provenance of runs, with one column per arm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from balanced_thinking.runs.load import Run


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
    keys = dict.fromkeys(key for runs in flat for run in runs for key in run)
    return tuple(
        ValueRow(key, tuple(_distinct_values(run.get(key, "") for run in runs) for runs in flat)) for key in keys
    )


def _flatten_mapping(mapping: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in mapping.items():
        if isinstance(value, dict) and value:
            yield from _flatten_mapping(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", "" if value is None else str(value)


def _distinct_values(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for value in values if value))
