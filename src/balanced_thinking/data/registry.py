"""The known data sets, and how `NAME`, `NAME:PATH`, a path or a hub name leads to one of them.

To add a data set, write one module with `load(path, *, split, **options)` that yields one `Example` or `BadRow` per
row. Then name it in `DATASETS` or call `register`. A module with `recognises(path)` is found by a bare path, too.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import NamedTuple

from balanced_thinking.config.names import did_you_mean
from balanced_thinking.data.bad_rows import DataError, UnknownDataError
from balanced_thinking.data.sources import SUFFIXES, file_suffix
from balanced_thinking.data.tables import is_hub_name
from balanced_thinking.data.unreadable import explain_unreadable
from balanced_thinking.system.files import expand_home

# Name -> module, imported when it is first needed.
DATASETS = {
    "world": "balanced_thinking.data.world",
    "puzzlevqa": "balanced_thinking.data.adapters.puzzlevqa",
    "scienceqa": "balanced_thinking.data.adapters.scienceqa",
    "iconqa": "balanced_thinking.data.adapters.iconqa",
    "chartqa": "balanced_thinking.data.adapters.chartqa",
    "mathvista": "balanced_thinking.data.adapters.mathvista",
    "tabmwp": "balanced_thinking.data.adapters.tabmwp",
    "vision-r1-cold": "balanced_thinking.data.adapters.vision_r1",
    "llava-cot": "balanced_thinking.data.adapters.llava_cot",
    "vlaa-thinking": "balanced_thinking.data.adapters.vlaa_thinking",
    "mulberry": "balanced_thinking.data.adapters.mulberry",
    "world-text": "balanced_thinking.data.world_text",
    "ecqa": "balanced_thinking.data.adapters.ecqa",
    "gsm8k": "balanced_thinking.data.adapters.gsm8k",
    "qasc": "balanced_thinking.data.adapters.qasc",
    "think-scienceqa": "balanced_thinking.data.adapters.think_scienceqa",
    "jsonl": "balanced_thinking.data.adapters.jsonl",
}


class DataSource(NamedTuple):
    """A key of `DATASETS`, and the path or hub name to load with it; None if none was given."""

    dataset: str
    path: str | None


def register(name: str, module: str) -> None:
    """Make the module at this import path known as a data set. Raises DataError for a taken name or a colon in it."""
    if ":" in name:
        raise DataError(f"the data set name {name!r} has a colon; expected a name without one")
    if DATASETS.get(name, module) != module:
        raise DataError(f"the data set name {name!r} is taken by {DATASETS[name]}; choose another name")
    DATASETS[name] = module


def import_adapter(name: str) -> ModuleType:
    """The module of a known data set."""
    return import_module(DATASETS[name])


def resolve_data(data: str) -> DataSource:
    """Which data set and path `data` means. Raises DataError if it is neither a data set nor a path."""
    if not isinstance(data, str):
        raise UnknownDataError(f"data is {data!r}; expected a data set's name or a path as text")
    name, _, path = data.partition(":")
    if name in DATASETS:
        return DataSource(name, path or None)
    names = ", ".join(DATASETS)
    expected = f"expected one of {names} (as NAME or NAME:PATH), a file or folder of data, or owner/name on the hub"
    place = expand_home(data)
    if not place.exists():
        for owner in DATASETS:
            if data in getattr(import_adapter(owner), "HUB", ()):
                return DataSource(owner, data)
        if is_hub_name(data):
            return DataSource("jsonl", data)
        raise UnknownDataError(f"there is no data set and no path {data!r}{did_you_mean(name, DATASETS)}; {expected}")
    for name in DATASETS:
        recognises = getattr(import_adapter(name), "recognises", None)
        if recognises is not None and recognises(place):
            return DataSource(name, data)
    raise UnknownDataError(explain_unreadable(place, SUFFIXES))


def result_folder_name(data: str, split: str) -> str:
    """The name of a result's folder, `<data>-<split>`, in which each data set has its own name.

    A named data set is called by its name, a path by its file's stem. If the stem is the split, its folder names it.
    A slash in the split's name becomes a dash, because reports look for results in one folder, not deeper.
    """
    folder = split.replace("/", "-")
    name, _, path = data.partition(":")
    if name in DATASETS and name != "jsonl":
        return f"{name}-{folder}"
    place = expand_home(path if name == "jsonl" and path else data).resolve()
    suffix = file_suffix(place)
    stem = place.name[: -len(suffix)] if suffix in SUFFIXES else place.name
    return f"{place.parent.name if stem == split else stem}-{folder}"
