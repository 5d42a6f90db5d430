"""Scorers and the reading of answers on (prediction, gold, choices). The fields of an input are separated by 0x1f."""

from __future__ import annotations

import random

from balanced_thinking.runs.outcomes import GROUPS, classify_outcome
from balanced_thinking.runs.records import Prediction
from balanced_thinking.scoring.answers import answers_match, find_choice, parse_answer
from balanced_thinking.scoring.quantities import parse_quantity
from balanced_thinking.scoring.scorers import SCORERS, score_against_all
from balanced_thinking.segments import FORMATS
from tests.faults.fuzz.target import Target
from tests.faults.fuzz.values import FRAGMENTS, decode_text, mutate_bytes, nasty_text

_NAMES = tuple(FORMATS)
_BETWEEN = b"\x1f"
_SYMMETRIC = ("exact",)


def generate(rng: random.Random) -> bytes:
    fields = [nasty_text(rng, 4) for _ in range(rng.choice((2, 2, 3, 4, 6)))]
    if rng.random() < 0.3:
        fields[1] = rng.choice((fields[0], fields[0].upper(), fields[-1], f"({fields[0]})"))
    return _BETWEEN.join(text.encode("utf-8", "surrogatepass") for text in fields)


def run(data: bytes) -> None:
    fields = [decode_text(part) for part in data.split(_BETWEEN)]
    prediction, gold, choices = fields[0], fields[1] if len(fields) > 1 else "", fields[2:30]
    for name, score in SCORERS.items():
        value = score(prediction, gold, choices)
        assert 0.0 <= value <= 1.0, (name, value)
        assert 0.0 <= score(None, gold, choices) <= 1.0
        assert value <= score_against_all(name, prediction, (gold, prediction), choices)
    for name in _SYMMETRIC:
        assert SCORERS[name](prediction, gold) == SCORERS[name](gold, prediction), name
    ours, right = parse_answer(prediction), parse_answer(gold)
    assert answers_match(ours, right) == answers_match(right, ours)
    index = find_choice(ours, [parse_answer(choice) for choice in choices])
    assert index is None or 0 <= index < len(choices)
    quantity = parse_quantity(ours.full)
    assert quantity is None or quantity.agrees_with(quantity)
    row = Prediction(id="x", gold=gold, prediction=prediction, correct=False, completion=" ".join(fields))
    assert classify_outcome(row, _NAMES[len(data) % len(_NAMES)]) in GROUPS


def mutate(rng: random.Random, data: bytes) -> bytes:
    return mutate_bytes(rng, data, FRAGMENTS)


TARGET = Target("scoring", generate, run, mutate)
