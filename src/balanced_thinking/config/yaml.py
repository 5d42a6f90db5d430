"""YAML -> typed arguments of a dataclass. Errors name the unknown key or the value of a wrong type. No torch.

A file may be from a stranger: its size, its depth and what its aliases stand for are bounded before anything is built.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from balanced_thinking.config.errors import RecipeError

MOST_BYTES = 2**20  # PyYAML reads about as much in a second
MOST_DEPTH = 50  # lists and mappings inside each other
MOST_NODES = 20_000  # values, with those that aliases stand for
_LONGEST_NUMBER = 100  # characters, so that it fits into a float
_MANY_DIGITS = "a number has"
_SHOWN = 60  # characters of a value in a message
# What PyYAML's constructors raise for a text that is not of the type that its tag or its form says.
_BAD_SCALAR = (ValueError, TypeError, LookupError, AttributeError, OverflowError)
_NO_TEXT = re.compile("[\0\ud800-\udfff]")  # what no file, name or text of a recipe can have
_OPENING = (yaml.SequenceStartEvent, yaml.MappingStartEvent)
_CLOSING = (yaml.SequenceEndEvent, yaml.MappingEndEvent)


class _Strict(yaml.constructor.SafeConstructor):
    """YAML in which a key occurs once, and in which every value can be used.

    PyYAML itself keeps the last of several values, and raises bare errors of Python for dates and long numbers.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and not key.tag.endswith(":merge"):
                if key.value in seen:
                    raise _node_error(f"the key {key.value[:_SHOWN]!r} occurs twice", key)
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except _BAD_SCALAR as error:
            kind, shown = node.tag.rpartition(":")[2], str(node.value)[:_SHOWN]
            raise _node_error(f"{shown!r} cannot be read as {kind} ({str(error)[:_SHOWN]})", node) from error

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if _NO_TEXT.search(value):
            raise _node_error("a text has a zero byte or half of a surrogate pair", node)
        if len(value) > _LONGEST_NUMBER and node.tag.endswith((":int", ":float")):
            raise _node_error(f"{_MANY_DIGITS} {len(value)} digits", node)
        return value


class _ExactLoader(_Strict, yaml.SafeLoader):
    """Says exactly what is wrong, and where."""


_LibYAML: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a PyYAML can be built without it


class _FastLoader(_Strict, _LibYAML):
    """Ten times faster."""


def _node_error(problem: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def read_yaml_file(path: Path, where: str = "") -> Any:
    """The value of a YAML file in UTF-8; `where` is what messages call it. Raises as `read_yaml`, and OSError."""
    if (size := path.stat().st_size) > MOST_BYTES:
        raise RecipeError(f"{where or path} has {size:,} bytes; expected YAML of at most {MOST_BYTES:,}")
    return read_yaml(path.read_bytes(), where or str(path))


def read_yaml(text: str | bytes, where: str) -> Any:
    """The value of a YAML text, or of a file's bytes, which are read as UTF-8 on every system.

    Raises RecipeError with line and column for text that is not valid YAML, or larger than `MOST_BYTES`, `MOST_DEPTH`
    and `MOST_NODES`.
    """
    if len(text) > MOST_BYTES:
        raise RecipeError(f"{where[:200]} has {len(text):,} characters; expected YAML of at most {MOST_BYTES:,}")
    with suppress(yaml.YAMLError, ValueError, OverflowError):
        return _load_bounded(text, _FastLoader)
    try:
        return _load_bounded(text, _ExactLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or type(error).__name__
        fix = "close open brackets and quotes, or quote the value"
        if isinstance(error, yaml.reader.ReaderError):
            fix = "expected text in UTF-8 without control characters"
        if str(reason).startswith(_MANY_DIGITS):
            fix = f"expected at most {_LONGEST_NUMBER}"
        raise RecipeError(f"{where}{place} is not valid YAML: {reason}; {fix}") from None
    except (
        ValueError,
        OverflowError,
    ) as error:  # PyYAML's scanner, of an escape beyond Unicode or a version of 5,000 digits
        raise RecipeError(
            f"{where} is not valid YAML: {str(error)[:_SHOWN]}; quote the value with single quotes"
        ) from None


def _load_bounded(text: str | bytes, loader: Any) -> Any:
    _refuse_bombs(text, loader)
    return yaml.load(text, loader)


def _refuse_bombs(text: str | bytes, loader: Any) -> None:
    """Raise ConstructorError for values too deep, too many or inside themselves, all aliases written out.

    Events are read one by one, so that this takes no memory for what they stand for.
    """
    sizes: dict[str, int] = {}  # anchor -> number of values
    open_nodes: list[tuple[str | None, int]] = []  # the anchor of each, and the number of values before it
    count = 0
    for event in yaml.parse(text, loader):
        anchor: Any = getattr(event, "anchor", None)
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == name for name, _ in open_nodes):
                raise _event_error(f"the alias *{anchor[:_SHOWN]} is inside of what it stands for", event)
            count += sizes.get(anchor, 0)
        elif isinstance(event, _OPENING):
            open_nodes.append((anchor, count))
            count += 1
        elif isinstance(event, _CLOSING):
            anchor, before = open_nodes.pop()
            sizes |= {anchor: count - before} if anchor is not None else {}
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            sizes |= {anchor: 1} if anchor is not None else {}
        if len(open_nodes) > MOST_DEPTH:
            raise _event_error(f"values are nested more than {MOST_DEPTH} levels deep", event)
        if count > MOST_NODES:
            raise _event_error(f"there are more than {MOST_NODES:,} values, with those that aliases stand for", event)


def _event_error(problem: str, event: Any) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, event.start_mark)
