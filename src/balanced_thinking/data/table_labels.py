"""Names of labels: a column of `ClassLabel` has numbers, and the table's schema has the name of each.

`datasets` writes the schema as JSON into parquet and Arrow files. -1 is its null.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from balanced_thinking.config.foreign_json import parse_json

_KEY = b"huggingface"
_NO_LABEL = -1
Labels = tuple[str, ...] | Mapping[str, Any] | list[Any]  # names; those of an object's values; those of a list's


def find_labels(schema: Any) -> dict[str, Labels]:
    """The names of the labels in the columns of an Arrow schema that has some."""
    try:
        features = parse_json((schema.metadata or {}).get(_KEY, b"{}"))["info"]["features"]
    except (ValueError, LookupError, TypeError):  # another tool's
        return {}
    return _find_inner(features) if isinstance(features, Mapping) else {}


def _find_inner(features: Mapping[str, Any]) -> dict[str, Labels]:
    found = ((str(name), _find_names(feature)) for name, feature in features.items())
    return {name: names for name, names in found if names is not None}


def _find_names(feature: Any) -> Labels | None:
    """The names of a label, or those within a list or an object; None without labels."""
    if isinstance(feature, list) and len(feature) == 1:
        inner = _find_names(feature[0])
        return None if inner is None else [inner]
    if not isinstance(feature, Mapping):
        return None
    if feature.get("_type") == "ClassLabel":
        names = feature.get("names")
        return tuple(map(str, names)) if isinstance(names, list) else None
    if isinstance(feature.get("_type"), str) and "feature" in feature:
        inner = _find_names(feature["feature"])
        return None if inner is None else [inner]
    return None if isinstance(feature.get("_type"), str) else _find_inner(feature) or None


def name_labels(value: Any, labels: Labels) -> Any:
    """The value with names in place of numbers. A number without a name becomes an object, which no reader takes."""
    if isinstance(labels, tuple):
        return _name_label(value, labels)
    if isinstance(value, list):  # of an object of lists, too: each list has its own labels
        inner = labels[0] if isinstance(labels, list) else labels
        return [name_labels(one, inner) for one in value]
    if isinstance(value, Mapping):
        inner = labels[0] if isinstance(labels, list) else labels
        if not isinstance(inner, Mapping):
            return value
        return {name: name_labels(one, inner[name]) if name in inner else one for name, one in value.items()}
    return value


def _name_label(value: Any, names: tuple[str, ...]) -> Any:
    if isinstance(value, list):  # an object of lists
        return [_name_label(one, names) for one in value]
    if not isinstance(value, int) or isinstance(value, bool) or value == _NO_LABEL:
        return None if value == _NO_LABEL else value
    return names[value] if 0 <= value < len(names) else {f"ClassLabel of {len(names)} names": value}
