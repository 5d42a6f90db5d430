"""Check the options of a data set: their names, and their types against the annotations of its adapter's `load`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from inspect import Parameter, signature
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from balanced_thinking.config.names import did_you_mean
from balanced_thinking.data.bad_rows import UnknownDataError

# Annotation -> type of the value. Values with another annotation are checked by the adapter.
_KINDS: dict[Any, Any] = {kind: kind for kind in (str, bool, NoneType, Path, Sequence, Mapping)}
_KINDS |= {int: Integral, float: Real}
_type_hints = cache(get_type_hints)  # evaluates the annotations, which takes a millisecond


def check_options(name: str, load: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raise DataError for the first option of data set `name` whose type is not the one that its `load` declares."""
    try:
        hints = _type_hints(load)
    except NameError:  # the adapter imports a type for type checkers only
        return
    declared = {key: parameter.annotation for key, parameter in signature(load).parameters.items()}
    if (settings := _keyword_settings(load)) is not None:
        hints, declared = hints | _type_hints(settings), declared | settings.__annotations__
    for key, value in options.items():
        if key in hints and not _matches_hint(value, hints[key]):
            expected = declared[key]
            expected = getattr(expected, "__forward_arg__", expected)  # of a TypedDict
            expected = expected if isinstance(expected, str) else getattr(expected, "__name__", expected)
            raise UnknownDataError(f"option {key!r} of data set {name!r} is {value!r}; expected {expected}")


def list_options(load: Callable[..., Any]) -> list[str]:
    """The names of a `load`'s options, also of those that it takes as `**settings: Unpack[...]`."""
    named = [
        key
        for key, parameter in signature(load).parameters.items()
        if key not in ("path", "split") and parameter.kind is not Parameter.VAR_KEYWORD
    ]
    settings = _keyword_settings(load)
    return named if settings is None else [*named, *settings.__annotations__]


def _keyword_settings(load: Callable[..., Any]) -> Any:
    """The TypedDict of a `load`'s `**settings: Unpack[...]`; None without one."""
    keyword = next((p for p in signature(load).parameters.values() if p.kind is Parameter.VAR_KEYWORD), None)
    if keyword is None:
        return None
    hint = _type_hints(load).get(keyword.name)
    return get_args(hint)[0] if get_args(hint) else None


def check_known_name(owner: str, kind: str, name: str, known: Iterable[str]) -> None:
    """Raise DataError, with the most similar known name, if `owner` has no split, part or option of this name."""
    known = list(known)
    if name not in known:
        raise UnknownDataError(f"{owner} has no {kind} {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}")


def require_train_split(name: str, split: str) -> None:
    """Raise DataError for another split of a data set that is published as training data only."""
    if split not in ("train", "all"):
        raise UnknownDataError(f"{name} has no split {split!r}, because it is training data only; use --split train")


def _matches_hint(value: Any, hint: Any) -> bool:
    union = get_origin(hint) in (Union, UnionType)
    kinds = [get_origin(kind) or kind for kind in (get_args(hint) if union else (hint,))]
    if not all(kind in _KINDS for kind in kinds):
        return True
    if isinstance(value, (bool, str)):  # Python also counts them as a number and as a sequence
        return type(value) in kinds
    return isinstance(value, tuple(_KINDS[kind] for kind in kinds))
