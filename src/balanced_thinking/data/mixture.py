"""Several data sets as one: the entries of `data` when it is a list, and the order in which training reads them.

    data:
      - geometry.jsonl
      - {data: owner/charts, split: train, limit: 5000, weight: 2}

Weights are shares of the samples: with weights 2 and 1, two of three samples come from the first set. Without any,
every row is in an epoch once. With them, an epoch ends when every set was read completely: rows of small sets repeat.
An entry without a weight has weight 1 if another entry has one.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balanced_thinking.data.bad_rows import DataError, UnknownDataError
from balanced_thinking.data.options import check_known_name

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)
DataNames = str | Sequence[str | Mapping[str, Any]]  # a data set, or several
KEYS = ("data", "name", "split", "weight", "limit", "data_options", "validation_split", "validation_options")
ID_MARK = ":"  # between the name of a data set and the id of its sample
_SHOWN = 4  # names of a mixture that a message lists


@dataclass(frozen=True)
class DataPart:
    """One data set of a list.

    name: unique in the list; the samples' ids begin with it. weight: its share of the samples, relative to the others';
    None in all parts if no part has one.
    """

    data: str
    name: str
    split: str
    limit: int | None = None
    weight: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def list_parts(
    data: DataNames, split: str = "train", limit: int | None = None, options: Mapping[str, Any] | None = None
) -> list[DataPart]:
    """The data sets that `data` names. What an entry leaves out is that of the arguments.

    Raises UnknownDataError for an entry that cannot be used.
    """
    if isinstance(data, str):
        return [DataPart(data, data, split, limit, None, dict(options or {}))]
    entries = _check_entries(data)
    weighted = any("weight" in entry for entry in entries)
    return [
        DataPart(
            entry["data"],
            name,
            entry.get("split") or split,
            entry.get("limit") or limit,
            float(entry.get("weight", 1.0)) if weighted else None,
            {**(options or {}), **(entry.get("data_options") or {})},
        )
        for name, entry in zip(_name_entries(entries), entries, strict=True)
    ]


def validation_data(data: DataNames) -> DataNames:
    """The entries with `validation_split` and `validation_options` in the place of `split` and `data_options`.

    An entry whose `validation_split` is null is left out. Rows are read once, whatever their weight in training.
    """
    if isinstance(data, str):
        return data
    entries = _check_entries(data)
    kept = [
        {
            "data": entry["data"],
            "name": name,
            "split": entry.get("validation_split"),
            "limit": entry.get("limit"),
            "data_options": entry.get("validation_options"),
        }
        for name, entry in zip(_name_entries(entries), entries, strict=True)
        if entry.get("validation_split", "") is not None
    ]
    if not kept:
        raise UnknownDataError("validation_split is null for every data set of the list; expected one to validate on")
    return kept


def _check_entries(data: Any) -> list[dict[str, Any]]:
    if not isinstance(data, Sequence) or not data:
        raise UnknownDataError(f"data is {data!r}; expected a data set's name or a path as text, or a list of them")
    return [_check_entry(entry, place) for place, entry in enumerate(data, 1)]


def _check_entry(entry: Any, place: int) -> dict[str, Any]:
    """An entry of a list as a mapping. Raises UnknownDataError with its place, from 1."""
    where = f"entry {place} of data"
    found = {"data": entry} if isinstance(entry, str) else entry
    if not isinstance(found, Mapping) or not isinstance(found.get("data"), str):
        raise UnknownDataError(f"{where} is {entry!r}; expected a name or path, or a mapping with the key data")
    for key in found:
        check_known_name(where, "key", str(key), KEYS)
    weight, limit = found.get("weight", 1), found.get("limit")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise UnknownDataError(f"{where} has weight {weight!r}; expected a number above 0, such as 2 or 0.5")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise UnknownDataError(f"{where} has limit {limit!r}; expected at least 1 row, or leave it out for all")
    for key in ("name", "split", "validation_split"):
        if not isinstance(found.get(key), str | None):
            raise UnknownDataError(f"{where} has {key} {found[key]!r}; expected a name")
    for key in ("data_options", "validation_options"):
        if not isinstance(found.get(key), Mapping | None):
            raise UnknownDataError(f"{where} has {key} {found[key]!r}; expected a mapping such as {{n: 400}}")
    return dict(found)


def _name_entries(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """A short name for each entry: its file's name without suffix, or its data set's. Equal ones get a number."""
    seen: Counter[str] = Counter()
    names = []
    for entry in entries:
        place = Path(entry["data"])
        short = entry.get("name") or (place.stem if place.exists() else entry["data"].partition(":")[0])
        short = short.replace(ID_MARK, "-") or "data"
        seen[short] += 1
        names.append(short if seen[short] == 1 else f"{short}-{seen[short]}")
    return names


def describe_data(data: DataNames) -> str:
    """The data of a run in one line: its name, or the names of a list with their weights."""
    if isinstance(data, str):
        return data
    parts = list_parts(data)
    shown = [part.data if part.weight is None else f"{part.data} (weight {part.weight:g})" for part in parts[:_SHOWN]]
    more = [f"{len(parts) - _SHOWN} more"] if len(parts) > _SHOWN else []
    return " + ".join([*shown, *more])


def mix_rows(rows: Dataset, data: DataNames, seed: int) -> Dataset:
    """The rows of several data sets, one set after another, in the shares of their weights.

    Unchanged without weights. Else the smallest number of samples in which every row occurs and the shares are exact to
    one sample, in random order. Rows of a set that repeats occur equally often, to one time. The same seed gives the
    same order, so that a resumed run goes on where it stopped. Sets are known by the ids of their rows.
    """
    parts = list_parts(data)
    if len(parts) < 2 or parts[0].weight is None:
        return rows
    places: dict[str, list[int]] = {part.name: [] for part in parts}
    for place, identity in enumerate(rows["id"]):
        places[identity.partition(ID_MARK)[0]].append(place)
    if empty := next((part.data for part in parts if not places[part.name]), None):
        raise DataError(f"{empty} has no usable row to mix in; leave it out of data, or see `balanced inspect`")
    import numpy as np

    weights = {part.name: part.weight or 0.0 for part in parts}
    counts = _count_samples({name: len(found) for name, found in places.items()}, weights)
    for name, count in counts.items():
        share = 100 * count / sum(counts.values())
        logger.info("%s: %d rows, %d samples of an epoch (%.1f %%)", name, len(places[name]), count, share)
    draw = np.random.default_rng(seed)
    drawn = [
        [*places[name] * (count // len(places[name])), *draw.permutation(places[name])[: count % len(places[name])]]
        for name, count in counts.items()
    ]
    return rows.select(draw.permutation(np.concatenate(drawn)))


def _count_samples(rows: Mapping[str, int], weights: Mapping[str, float]) -> dict[str, int]:
    """How many samples of an epoch are from each set, so that each set is read completely at least once."""
    per_weight = max(rows[name] / weight for name, weight in weights.items())
    return {name: max(rows[name], round(per_weight * weight)) for name, weight in weights.items()}
