"""YAML -> typed arguments of a dataclass. Errors name the unknown key or the value of a wrong type. No torch."""

from __future__ import annotations

from typing import Any

import yaml

from balanced_thinking.config.errors import RecipeError

_SHOWN = 60  # characters of a value in a message

# What PyYAML's constructors raise for a text that is not of the type that its tag or its form says.
_BAD_SCALAR = (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError)


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML in which a key occurs once. PyYAML itself silently keeps the last one."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """As PyYAML does it, but a text that its constructors cannot read is an error with a line."""
        try:
            return super().construct_object(node, deep)
        except _BAD_SCALAR as error:
            kind, shown = node.tag.rpartition(":")[2], str(node.value)[:_SHOWN]
            raise yaml.constructor.ConstructorError(
                None, None, f"{shown!r} cannot be read as {kind} ({str(error)[:_SHOWN]})", node.start_mark
            ) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and not key.tag.endswith(":merge")]
        for place, key in enumerate(keys):
            if key.value in (other.value for other in keys[:place]):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} occurs twice", key.start_mark
                )
        return super().construct_mapping(node, deep)


def read_yaml(text: str | bytes, where: str) -> Any:
    """The value of a YAML text, or of a file's bytes, which are read as UTF-8 on every system.

    Raises RecipeError with line and column for text that is not valid YAML.
    """
    try:
        return yaml.load(text, _UniqueKeyLoader)
    except RecursionError:
        raise RecipeError(f"{where} is nested too deeply; expected a few levels of lists and mappings") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or type(error).__name__
        fix = "close open brackets and quotes, or quote the value"
        if isinstance(error, yaml.reader.ReaderError):
            fix = "expected text in UTF-8 without control characters"
        raise RecipeError(f"{where}{place} is not valid YAML: {reason}; {fix}") from None
