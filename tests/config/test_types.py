"""Values of YAML and of the command line against the types of fields."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

import pytest

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.names import did_you_mean
from balanced_thinking.config.types import typed_arguments


class Speed(Enum):
    SLOW = "slow"
    FAST = "fast"
    NO = "no"


@dataclass
class Schema:
    steps: int = 1
    rate: float = 1.0
    on: bool = False
    limit: int | None = None
    names: list[str] | str | None = None
    layers: list[int] | None = None
    weights: dict[str, float] | None = None
    speed: Speed | str = "slow"
    bias: Literal["none", "all"] = "none"
    link: str | Literal[False] = ""
    other: Any = None
    derived: int = field(init=False, default=0)


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("steps", "1e3", 1000),  # as YAML reads it
        ("steps", 8.0, 8),
        ("rate", "1e-4", 1e-4),
        ("rate", 1, 1.0),
        ("limit", None, None),
        ("names", "q_proj,v_proj", ["q_proj", "v_proj"]),  # without brackets
        ("names", "q_proj , v.proj-2", ["q_proj", "v.proj-2"]),
        ("names", "q_proj", "q_proj"),
        ("names", r".*\.(q|v)_proj{1,2}", r".*\.(q|v)_proj{1,2}"),  # an expression's comma is its own
        ("layers", "1,2", [1, 2]),
        ("layers", [3], [3]),
        ("weights", {"a": 1}, {"a": 1}),
        ("speed", "fast", "fast"),
        ("speed", False, "no"),  # as YAML reads `no`
        ("bias", "all", "all"),
        ("link", "any text", "any text"),
        ("link", False, False),
        ("other", object, object),
    ],
)
def test_what_is_meant(name: str, value: Any, meant: Any) -> None:
    found = typed_arguments(Schema, {name: value})[name]
    assert (found, type(found)) == (meant, type(meant))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("steps", "ten", "steps is 'ten'; expected an integer"),
        ("steps", True, "steps is true; expected an integer"),
        ("steps", 1.5, "steps is 1.5; expected an integer"),
        ("steps", None, "steps is empty; expected an integer"),
        ("on", "flase", "on is 'flase'; expected true or false"),
        ("limit", "x", "limit is 'x'; expected an integer or null"),
        ("layers", "q_proj", "layers is 'q_proj'; expected a list or null, such as '[a, b]'"),
        ("weights", 3, "weights is 3; expected a mapping or null, such as '{key: value}'"),
        ("names", 3, "names is 3; expected text or a list or null: put it in quotes"),
        ("speed", "fats", "speed is 'fats' (did you mean 'fast'?); known: slow, fast, no"),
        ("speed", 3, "speed is 3; expected slow or fast or no"),
        ("bias", "al", "bias is 'al' (did you mean 'all'?); known: none, all"),
        ("stpes", 3, "the training section has the unknown key 'stpes' (did you mean 'steps'?)"),
        ("derived", 3, "unknown key 'derived'"),
    ],
)
def test_what_cannot_be_meant_says_what_is_expected(name: str, value: Any, said: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(said)):
        typed_arguments(Schema, {name: value})


def test_a_synonym_is_better_than_the_most_similar_name() -> None:
    known = ["r", "rank_pattern", "lora_alpha"]
    assert did_you_mean("rank", known) == " (did you mean 'rank_pattern'?)"
    assert did_you_mean("Rank", known, {"rank": "r"}) == " (did you mean 'r'?)"
    assert did_you_mean("zzz", known, {"rank": "r"}) == ""
