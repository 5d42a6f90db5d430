"""Both parsers of YAML read the same values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.yaml import _ExactLoader, _FastLoader, _load_bounded, read_yaml
from tests.conftest import REPOSITORY

FILES = sorted((REPOSITORY / "recipes").rglob("*.yaml"))
# Without tabs, a lone `!` and a byte order mark inside of a text: there PyYAML's own parser does not follow YAML.
PIECES = (
    *("a", "b: ", "c", ": ", "- ", "\n", "\n  ", "[", "]", "{", "}", ", ", "? ", "#", " # x", "&x ", "*x", "<<: "),
    *("!!str ", "|\n  ", ">-\n  ", "'", '"', "\\n", "\\u00e9", "é", "🤔", "---\n", "...\n", "%", "@", "=", "1_000"),
    *("1e-4", "1.5e3", "0o17", "017", "0x1f", "~", "null", "yes", "off", "True", "2026-01-31", ".inf", ".nan", "1:30"),
)


def read(text: str | bytes, loader: Any) -> str:
    """The values and their types; the same for two of NaN."""
    return repr(_load_bounded(text, loader))


def test_libyaml_is_used_where_pyyaml_has_it() -> None:
    assert yaml.__with_libyaml__ == issubclass(_FastLoader, getattr(yaml, "CSafeLoader", ()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_every_document_of_a_recipe_is_read_the_same_by_both(path: Path) -> None:
    for text in path.read_text(encoding="utf-8").split("\n---\n"):
        assert read(text, _FastLoader) == read(text, _ExactLoader)


def test_a_wrong_text_is_described_by_the_exact_one() -> None:
    """libyaml sees the end of the text in line 2."""
    with pytest.raises(RecipeError, match=r"x, line 1, column 6 is not valid YAML: .*got '<stream end>'"):
        read_yaml("a: [1", "x")
    with pytest.raises(RecipeError, match=r"line 2, column 1 is not valid YAML: found character '\\t'"):
        read_yaml("a:\n\tb: 1", "x")


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_what_both_accept_is_the_same(text: str) -> None:
    try:
        fast, exact = read(text, _FastLoader), read(text, _ExactLoader)
    except (yaml.YAMLError, ValueError, OverflowError):
        return
    assert fast == exact
