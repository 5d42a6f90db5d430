"""The world's sentences in English: for each kind (`data.world.phrasing`) two or three ways to say it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from balanced_thinking.data.world.phrasing import recognise_sentence
from balanced_thinking.data.world_text.descriptions import CELL_OF
from balanced_thinking.data.world_text.wordings import RELATIONS

WAYS: dict[str, tuple[str, ...]] = {
    "cell": ("The {place} has {a_tile}.", "At the {place} there is {a_tile}.", "In the {place} cell I see {a_tile}."),
    "empty_cell": ("The {place} is empty.", "There is nothing at the {place}.", "Nothing is in the {place} cell."),
    "count": ("Counting the {group}: {counts}.", "For the {group}: {counts}.", "Going through the {group}: {counts}."),
    "no_group": (
        "There are no {group}, so that makes 0.",
        "I find no {group}, which makes 0.",
        "No {group} anywhere, so the count is 0.",
    ),
    "relation": (
        "The {tile} at the {place} is {relation} the {other} at the {there}.",
        "The {tile} ({place}) is {relation} the {other} ({there}).",
    ),
    "absence": (
        "There is no {color} {shape}.",
        "I see no {color} {shape} anywhere.",
        "No {color} {shape} is on the board.",
    ),
    "comparison": (
        "I count {n_group}, {more} {m_groups}.",
        "We have {n_group}, which is {more} {m_groups}.",
        "Here are {n_group}, {more} {m_groups}.",
    ),
    "attribute": (
        "Its {attribute} is {value}.",
        "So its {attribute} is {value}.",
        "That tile has the {attribute} {value}.",
    ),
    "total": ("So the count is {n}.", "That makes {n} in total.", "The total is {n}."),
    "verdict": ("{n} is {more} {m}.", "So {n} is {more} {m}.", "Clearly, {n} is {more} {m}."),
    "location": (
        "The {tile} is at the {place}.",
        "I find the {tile} at the {place}.",
        "The place of the {tile} is the {place}.",
    ),
    "digit": (
        "The {color} digit is {n}, at the {place}.",
        "The {color} digit at the {place} is {n}.",
        "At the {place} I read the {color} digit {n}.",
    ),
    "neighbour": (
        "Directly {relation} it is the {place}, with {a_tile}.",
        "The cell {relation} it is the {place}, which has {a_tile}.",
        "One cell {relation} it is the {place}, where I see {a_tile}.",
    ),
    "sum": ("{n} {operation} {m} is {o}.", "{n} {operation} {m} makes {o}.", "So {n} {operation} {m} equals {o}."),
    "odd_one": (
        "All but one share {common}, and the odd one is {odd}.",
        "So {common} is the common one, and {odd} is the odd one.",
        "I see {common} everywhere except once, where it is {odd}.",
    ),
    "rule": (
        "Each {line} has one color.",
        "Every {line} shows a single color.",
        "So within a {line} the color stays the same.",
    ),
    "hidden_color": (
        "So the hidden color is {value}.",
        "The question mark must hide {value}.",
        "That means the hidden tile is {value}.",
    ),
    "option": ("Option {letter} is {value}.", "So {value} is option {letter}.", "That is option {letter}, {value}."),
    "values": ("Looking at them: {values}.", "One by one: {values}.", "In detail: {values}."),
}
Choose = Callable[[Sequence[str]], str]


def say_in_english(sentence: str, choose: Choose) -> str:
    """A sentence of the world's grammar in English, in the way that `choose` takes of those of its kind."""
    kind, found = recognise_sentence(sentence)
    words = found | {name: CELL_OF[found[name]] for name in ("place", "there") if name in found}
    if "tile" in words:
        words["a_tile"] = f"a {words['tile']}"
    if "relation" in words:
        words["relation"] = RELATIONS[words["relation"]]
    if "groups" in words:
        words["n_group"] = _name_number(words["n"], words["group"])
        words["m_groups"] = _name_number(words["m"], words["groups"])
    if "counts" in words:
        words["counts"] = re.sub(r"(\w+) makes", lambda m: f"the {CELL_OF[m[1]]} makes", words["counts"])
    if "values" in words:
        words["values"] = re.sub(r"(\w+) is (\w+)", lambda m: f"{m[2]} at the {CELL_OF[m[1]]}", words["values"])
    text = choose(WAYS[kind]).format(**words).replace(" , ", ", ")
    return text[0].upper() + text[1:]


def _name_number(number: str, group: str) -> str:
    """`1 red tile`, `2 red tiles`, `1 cross`."""
    return f"{number} {group if number != '1' else group.removesuffix('es' if group == 'crosses' else 's')}"
