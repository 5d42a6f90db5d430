"""What a study fixed before it ran: its contrasts, its margin, and the order of settings, arms and benchmarks."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from balanced_thinking.runs.files import read_foreign_file
from balanced_thinking.runs.paths import PLAN

MAIN_SPLIT = "test"


@dataclass(frozen=True)
class Plan:
    """`contrasts` are (arm, baseline) pairs, `margin` is in points, `benchmarks` are (data, split) pairs.

    Fields are empty or None where there is no study or it does not define them.
    """

    contrasts: tuple[tuple[str, str], ...] = ()
    margin: float | None = None
    settings: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()
    benchmarks: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def load_plan(root: Path) -> Plan:
    """The plan in `study.yaml` of a study's folder, or of the study that `root` is a setting of."""
    path = root / PLAN
    if path.is_file():
        return _read_plan(path)
    above = root.resolve().parent / PLAN
    plan = _read_plan(above) if above.is_file() else Plan()
    return plan if root.resolve().name in plan.settings else Plan()


def _read_plan(path: Path) -> Plan:
    try:
        raw = read_foreign_file(path)
    except (OSError, ValueError, RecursionError) as error:
        return Plan(notes=(f"{PLAN} cannot be read ({type(error).__name__}): its contrasts and margin are not used",))
    if not isinstance(raw, dict):
        return Plan(notes=(f"{PLAN} holds {type(raw).__name__}; expected a mapping",))
    pairs, unusable = _read_contrast_pairs(raw.get("contrasts"))
    notes = [f"{PLAN}: {unusable} contrasts are not [arm, baseline] pairs"] if unusable else []
    margin = raw.get("margin")
    if margin is not None and not (isinstance(margin, int | float) and 0 <= margin < 100):
        notes.append(f"{PLAN}: margin is {reprlib.repr(margin)}; expected points from 0 to below 100")
        margin = None
    settings, benchmarks = raw.get("settings"), _planned_benchmarks(raw)
    return Plan(pairs, margin, _keys_if_mapping(settings), _keys_if_mapping(raw.get("arms")), benchmarks, tuple(notes))


def _read_contrast_pairs(value: Any) -> tuple[tuple[tuple[str, str], ...], int]:
    """The usable pairs without repetitions, and the number of unusable entries."""
    entries = value if isinstance(value, list) else []
    usable = [entry for entry in entries if isinstance(entry, list) and len(entry) == 2]
    return tuple(dict.fromkeys((_name(arm), _name(base)) for arm, base in usable)), len(entries) - len(usable)


def _planned_benchmarks(raw: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """The (data, split) pairs of the study in its order, then those that only settings have."""
    varied = (part for _, part in _items_of_nested_mapping(raw, "settings"))
    found = [
        (str(data), str(split))
        for part in (raw, *varied)
        for data, options in _items_of_nested_mapping(part, "evaluate")
        for split in _benchmark_splits(options)
    ]
    return tuple(dict.fromkeys(found))


def _items_of_nested_mapping(part: Any, key: str) -> Iterable[tuple[Any, Any]]:
    value = part.get(key) if isinstance(part, dict) else None
    return value.items() if isinstance(value, dict) else ()


def _benchmark_splits(options: Any) -> list[Any]:
    splits = options.get("splits", MAIN_SPLIT) if isinstance(options, dict) else MAIN_SPLIT
    return splits if isinstance(splits, list) else [splits]


def _keys_if_mapping(value: Any) -> tuple[str, ...]:
    return tuple(map(_name, value)) if isinstance(value, dict) else ()


def _name(value: Any) -> str:
    """A name as the plan means it: a number is one, too; anything longer is none."""
    return str(value) if isinstance(value, (str, int, float)) else reprlib.repr(value)
