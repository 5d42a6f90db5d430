"""Scorers compare an extracted answer with the right one and give 0 to 1.

To add one, write a function and name it in `SCORERS`; or leave it in a file of your own and name it `module:function`.

- `exact` reads both sides in the same way (`answers`), so it is symmetric. It never runs an answer as code.
- `numeric` also accepts two quantities of the same value (`quantities`): fractions, percentages, powers of ten, units.
  A unit may be missing on one side.
- The others reproduce published scorers (`published`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Protocol

from balanced_thinking.config.errors import BalancedThinkingError, RecipeError
from balanced_thinking.config.names import did_you_mean
from balanced_thinking.config.own_functions import OwnFunction, is_own_name, load_own_function
from balanced_thinking.scoring import published
from balanced_thinking.scoring.answers import answers_match, find_choice, parse_answer, same_wording
from balanced_thinking.scoring.quantities import parse_quantity, take_right_side
from balanced_thinking.scoring.wrappers import strip_answer, take_yes_or_no


class Scorer(Protocol):
    """(prediction, None if none could be extracted; the right answer; the texts of the choices) -> score, 0 to 1."""

    def __call__(self, prediction: str | None, gold: str, choices: Sequence[str] = ()) -> float: ...


class ScorerError(BalancedThinkingError, ValueError):
    """A scorer of the user's own failed, or gave something else than a score from 0 to 1."""


def get_scorer(name: str) -> Scorer:
    """The scorer of this name, or the user's own for `module:function`. Raises ValueError where there is none."""
    if is_own_name(name):
        return _OwnScorer(load_own_scorer(name))
    if name not in SCORERS:
        raise ValueError(
            f"there is no scorer {name!r}{did_you_mean(name, SCORERS)}; known: {', '.join(SCORERS)}, or "
            "module:function for your own"
        )
    return SCORERS[name]


def load_own_scorer(name: str) -> OwnFunction:
    """A scorer of the user's own. Raises RecipeError where there is none, or for a function of other arguments."""
    own = load_own_function(name, "scorer")
    own.parameters()
    try:
        inspect.signature(own.call).bind("prediction", "gold", ("choice",))
    except TypeError as error:
        raise RecipeError(
            f"the scorer {name!r} in {own.file} takes {inspect.signature(own.call)}; expected "
            "(prediction, gold, choices)"
        ) from error
    return own


class _OwnScorer:
    """A scorer of the user's own, whose scores are checked. A missing answer is 0, and the function is not called."""

    def __init__(self, own: OwnFunction) -> None:
        self.own = own

    def __call__(self, prediction: str | None, gold: str, choices: Sequence[str] = ()) -> float:
        if prediction is None:
            return 0.0
        said = f"the scorer {self.own.name!r}"
        try:
            score = self.own.call(prediction, gold, tuple(choices))
        except Exception as error:  # whatever the user's code raises
            raise ScorerError(f"{said} failed on {prediction!r}: {type(error).__name__}: {error}") from error
        if not isinstance(score, Real) or not 0 <= float(score) <= 1:  # NaN is in no range
            raise ScorerError(f"{said} gave {score!r} for {prediction!r}; expected a number from 0 to 1")
        return float(score)


def score_exact(prediction: str | None, gold: str, choices: Sequence[str] = ()) -> float:
    """1.0 if the prediction means the same as `gold`, else 0.0. None (no answer was extracted) is 0.0."""
    if prediction is None:
        return 0.0
    ours, right = parse_answer(prediction, len(choices)), parse_answer(gold, len(choices))
    read_choices = [parse_answer(choice) for choice in choices]
    index = find_choice(right, read_choices)
    if index is not None:
        named = find_choice(ours, read_choices)
        if named is None:
            named = find_choice(parse_answer(take_yes_or_no(prediction)), read_choices)
        return float(named == index)
    if same_wording(ours, right):
        return float(bool(right.full))  # two empty answers do not match
    shorter = ((take_yes_or_no(prediction), gold), (prediction, take_yes_or_no(gold)))
    pairs = [(ours, right), *((parse_answer(a), parse_answer(b)) for a, b in shorter if a and b)]
    return float(any(answers_match(a, b) for a, b in pairs))


def score_numeric(prediction: str | None, gold: str, choices: Sequence[str] = ()) -> float:
    """1.0 if `score_exact` gives it or both sides are quantities of the same value and unit, else 0.0.

    A prediction that equals two of the choices (`5` with the choices `5 cm` and `5 m`) chooses neither. A letter with
    the value of another choice (`A. 45` where B is `45 cm`) is not an answer.
    """
    if prediction is None:
        return 0.0
    answer, read_choices = parse_answer(prediction, len(choices)), [parse_answer(choice) for choice in choices]
    index = find_choice(parse_answer(gold, len(choices)), read_choices)
    ours = parse_quantity(answer.cased if answer.letter else strip_answer(prediction))
    options = [parse_quantity(strip_answer(text)) for text in choices]
    agreeing = [place for place, option in enumerate(options) if ours and option and ours.agrees_with(option)]
    if score_exact(prediction, gold, choices):
        contradicts = answer.letter and index is not None and agreeing and index not in agreeing
        return float(not contradicts)
    sides = [parse_answer(take_right_side(strip_answer(text))) for text in (prediction, gold)]
    if index is None and all(side.full for side in sides) and same_wording(*sides):
        return 1.0
    right = parse_quantity(strip_answer(gold)) if index is None else options[index]
    if answer.letter or ours is None or right is None or not ours.agrees_with(right):
        return 0.0
    return float(len(agreeing) < 2)


def score_against_all(
    scorer: str, prediction: str | None, answers: Iterable[str], choices: Sequence[str] = ()
) -> float:
    """The best score of a prediction, where several answers are right."""
    score = get_scorer(scorer)
    return max(score(prediction, answer, choices) for answer in answers)


SCORERS: dict[str, Scorer] = {
    "exact": score_exact,
    "numeric": score_numeric,
    "lmms": published.score_lmms,
    "lmms-raw": published.score_lmms,
    "anls": published.score_anls,
    "relaxed": published.score_relaxed,
    "official": published.score_official,
}
# These read the complete output, not the answer extracted from it.
RAW_OUTPUT_SCORERS = frozenset({"lmms-raw"})
