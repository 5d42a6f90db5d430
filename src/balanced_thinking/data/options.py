"""The options of a data set, checked against the annotations of its adapter's `load`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

# An annotation -> what the value may be; values of any other annotation are the adapter's to check.
_KINDS: dict[Any, Any] = {kind: kind for kind in (str, bool, NoneType, Path, Sequence, Mapping)}
_KINDS |= {int: Integral, float: Real}


def check_options(name: str, load: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raise ValueError for the first option of data set `name` that is not of the type that its `load` says."""
    try:
        hints = get_type_hints(load)
    except NameError:  # names that an adapter imports for type checkers only
        return
    for key, value in options.items():
        if key in hints and not _matches_hint(value, hints[key]):
            expected = signature(load).parameters[key].annotation
            expected = expected if isinstance(expected, str) else getattr(expected, "__name__", expected)
            raise ValueError(f"option {key!r} of data set {name!r} is {value!r}; expected {expected}")


def check_train_split(name: str, split: str) -> None:
    """For sets that are published as training data alone. Raises ValueError for another split."""
    if split not in ("train", "all"):
        raise ValueError(f"{name} has no split {split!r}: it is training data; take --split train")


def _matches_hint(value: Any, hint: Any) -> bool:
    union = get_origin(hint) in (Union, UnionType)
    kinds = [get_origin(kind) or kind for kind in (get_args(hint) if union else (hint,))]
    if not all(kind in _KINDS for kind in kinds):
        return True
    if isinstance(value, (bool, str)):  # no number and no sequence
        return type(value) in kinds
    return isinstance(value, tuple(_KINDS[kind] for kind in kinds))
