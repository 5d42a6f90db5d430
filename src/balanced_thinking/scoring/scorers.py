"""Scorers: an extracted answer against the right one, from 0 to 1. To add one, write a function, name it in `SCORERS`.

`exact` reads both sides the same way (`answers`), so it is symmetric, and never runs or parses them as code.

`numeric` is `exact`, or two quantities of one value (`quantities`): fractions, percentages, powers of ten, and units,
which may be left out on one side.

The others are the field's own (`field`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from balanced_thinking.config.names import did_you_mean
from balanced_thinking.scoring import published as field
from balanced_thinking.scoring.answers import place_of, read_answer, says_same
from balanced_thinking.scoring.quantities import quantity_of


class Scorer(Protocol):
    """(prediction, None where none could be extracted; the right answer; the choices' texts) -> score from 0 to 1."""

    def __call__(self, prediction: str | None, gold: str, choices: Sequence[str] = ()) -> float: ...


def get_scorer(name: str) -> Scorer:
    """The scorer of this name. Raises ValueError for an unknown one."""
    if name not in SCORERS:
        raise ValueError(f"there is no scorer {name!r}{did_you_mean(name, SCORERS)}; known: {', '.join(SCORERS)}")
    return SCORERS[name]


def exact(prediction: str | None, gold: str, choices: Sequence[str] = ()) -> float:
    """1.0 if the prediction says the same as `gold`, else 0.0; None (nothing was extracted) is 0.0."""
    if prediction is None:
        return 0.0
    ours, right = read_answer(prediction), read_answer(gold)
    if ours.whole == right.whole:
        return float(bool(right.whole))
    read_choices = [read_answer(choice) for choice in choices]
    place = place_of(right, read_choices)
    return float(says_same(ours, right) if place is None else place_of(ours, read_choices) == place)


def numeric(prediction: str | None, gold: str, choices: Sequence[str] = ()) -> float:
    """1.0 where `exact` says so or both sides are quantities of one value and unit, else 0.0.

    With choices, a prediction that is the same quantity as two of them (`5` where there are `5 cm` and `5 m`) is none.
    """
    if exact(prediction, gold, choices):
        return 1.0
    place = place_of(read_answer(gold), [read_answer(choice) for choice in choices])
    right_text = gold if place is None else choices[place]
    ours, right = (None if text is None else quantity_of(read_answer(text).whole) for text in (prediction, right_text))
    if ours is None or right is None or not ours.same(right):
        return 0.0
    options = [quantity_of(read_answer(text).whole) for text in choices]
    return float(sum(option is not None and ours.same(option) for option in options) < 2)


SCORERS: dict[str, Scorer] = {
    "exact": exact,
    "numeric": numeric,
    "lmms": field.lmms,
    "lmms-raw": field.lmms,
    "anls": field.anls,
    "relaxed": field.relaxed,
    "official": field.official,
}
# These read the whole output, not the answer extracted from it.
RAW = frozenset({"lmms-raw"})
