"""The kinds of sentences that traces consist of, and two or three ways to say each.

The first way of a kind is the one of `sentences` and `questions`. The others have about the same length and the same
facts in almost the same order, so that a small model can learn them. They use no word that is new to the embedded
models' tokenizer.
"""

from __future__ import annotations

import random
import re
from functools import cache
from string import Formatter
from typing import NamedTuple

from balanced_thinking.data.world.scene import COLORS, PLACES, SHAPES, SIZES

_PLACE, _COLOR, _SHAPE, _SIZE = ("|".join(words) for words in (PLACES, COLORS, SHAPES, SIZES))
_TILE = rf"(?:{_SIZE}) (?:{_COLOR}) (?:{_SHAPE})|(?:{_COLOR}) (?:\d|{_SHAPE})|question mark"
_GROUP = rf"(?:{_COLOR}|{_SIZE}) tiles|(?:{_SHAPE})e?s"
# What may stand in a field of a template; in one that is not named here, one word.
_ONE_WORD = r"\w+"
_FIELDS = {
    "place": _PLACE,
    "there": _PLACE,
    "tile": _TILE,
    "other": _TILE,
    "group": _GROUP,
    "groups": _GROUP,
    "relation": "left of|right of|above|below",
    "more": "not more than|more than",
    "counts": r"\w+ makes \d(?: , \w+ makes \d)*",
    "values": rf"(?:{_PLACE}) is \w+(?: , \w+ is \w+)*",
    "words": ".+",
}
# Kind -> its ways, without the full stop. All have the same fields.
PHRASES: dict[str, tuple[str, ...]] = {
    "cell": ("{place} : {tile}", "{place} has a {tile}", "at {place} : {tile}"),
    "empty_cell": ("{place} : empty", "{place} is empty", "{place} has no tile"),
    "count": ("counting {group} : {counts}", "the number of {group} : {counts}", "how many {group} : {counts}"),
    "no_group": (
        "there are no {group} , that makes 0",
        "no {group} are there , that makes 0",
        "counting {group} : that makes 0",
    ),
    "relation": (
        "the {tile} at {place} is {relation} the {other} at {there}",
        "at {place} the {tile} is {relation} the {other} at {there}",
        "a {tile} at {place} is {relation} a {other} at {there}",
    ),
    "absence": ("there is no {color} {shape}", "no {color} {shape} is there", "a {color} {shape} is not there"),
    "comparison": (
        "there are {n} {group} , {more} {m} {groups}",
        "{n} {group} are there , {more} {m} {groups}",
        "the {n} {group} are {more} the {m} {groups}",
    ),
    "question": (
        "the question : {words}",
        "look at the question : {words}",
        "once more the question : {words}",
    ),
    "attribute": ("its {attribute} is {value}", "the {attribute} of it is {value}", "it has the {attribute} {value}"),
    "total": ("so there are {n}", "there are {n}", "so the number is {n}"),
    "verdict": ("{n} is {more} {m}", "so {n} is {more} {m}", "the number {n} is {more} {m}"),
    "location": ("the {tile} is at {place}", "at {place} is the {tile}", "look at {place} : the {tile}"),
    "digit": (
        "the {color} digit is {n} at {place}",
        "the {color} digit : {n} at {place}",
        "look at the {color} digit : {n} at {place}",
    ),
    "neighbour": (
        "{relation} it is {place} : {tile}",
        "{relation} it {place} has a {tile}",
        "{relation} it at {place} : {tile}",
    ),
    "sum": ("{n} {operation} {m} is {o}", "{n} {operation} {m} makes {o}", "so {n} {operation} {m} is {o}"),
    "odd_one": ("all are {common} but one is {odd}", "so all are {common} but one is {odd}"),
    "rule": ("each {line} has one color", "each {line} is of one color", "all tiles in a {line} have one color"),
    "hidden_color": ("so the hidden color is {value}", "the hidden color is {value}", "so the hidden tile is {value}"),
    "option": ("option {letter} is {value}", "so option {letter} is {value}", "{value} is option {letter}"),
    "values": ("{values}", "look : {values}", "the tiles : {values}"),
}


class KnownSentence(NamedTuple):
    """A sentence's kind, and its words by field."""

    kind: str
    fields: dict[str, str]


@cache
def _compile_template(template: str) -> re.Pattern[str]:
    fields = [name for _, name, _, _ in Formatter().parse(template) if name]
    pattern = template.format(**{name: f"(?P<{name}>{_FIELDS.get(name, _ONE_WORD)})" for name in fields})
    return re.compile(f"{pattern} \\.")


def recognise_sentence(sentence: str) -> KnownSentence:
    """The kind of a sentence in its first way. Raises ValueError for another sentence."""
    for kind, (first, *_) in PHRASES.items():
        if match := _compile_template(first).fullmatch(sentence):
            return KnownSentence(kind, match.groupdict())
    raise ValueError(f"no kind of sentence reads {sentence!r}; expected the first way of one of {', '.join(PHRASES)}")


def vary_wording(sentence: str, rng: random.Random) -> str:
    """The same sentence in one of its kind's ways."""
    kind, fields = recognise_sentence(sentence)
    return f"{rng.choice(PHRASES[kind]).format(**fields)} ."
