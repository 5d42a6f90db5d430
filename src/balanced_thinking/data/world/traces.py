"""Truthful text about a scene: the sentences that pad a trace of thought to a wanted length, and whole descriptions."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import chain

from balanced_thinking.data.world.questions import counting, phrase
from balanced_thinking.data.world.scene import COLORS, COLUMNS, SHAPES, SIZES, Scene, place


def describe(scene: Scene, rng: random.Random) -> str:
    """What every cell holds, in random order."""
    return " ".join(_cells(scene, rng))


def remark(scene: Scene, words: int, rng: random.Random) -> str:
    """About `words` words on relations, groups and numbers."""
    return " ".join(_until(_remarks(scene, rng), words))


def think(scene: Scene, steps: Sequence[str], words: int, rng: random.Random) -> str:
    """A trace of about `words` words: what is seen first, then the `steps` that lead to the answer."""
    needed = words - sum(len(step.split()) for step in steps)
    return " ".join([*_until(chain(_cells(scene, rng), _remarks(scene, rng)), needed), *steps])


def _cells(scene: Scene, rng: random.Random) -> Iterator[str]:
    for cell in rng.sample(range(len(scene.cells)), len(scene.cells)):
        yield _cell(scene, cell)


def _remarks(scene: Scene, rng: random.Random) -> Iterator[str]:
    """True sentences about the scene, without end."""
    while True:
        sentence = rng.choice(_REMARKS)(scene, rng)
        if sentence:
            yield sentence


def _until(sentences: Iterator[str], words: int) -> list[str]:
    """As many sentences as come nearest to `words` words."""
    chosen: list[str] = []
    total = 0
    while total < words:
        sentence = next(sentences)
        length = len(sentence.split())
        if total + length / 2 > words:
            break
        chosen.append(sentence)
        total += length
    return chosen


def _cell(scene: Scene, cell: int) -> str:
    tile = scene.cells[cell]
    return f"{place(cell)} : {'empty' if tile is None else tile.name} ."


def _random_cell(scene: Scene, rng: random.Random) -> str:
    return _cell(scene, rng.randrange(len(scene.cells)))


def _relation(scene: Scene, rng: random.Random) -> str | None:
    (a, first), (b, second) = rng.sample(scene.tiles, 2)
    if rng.random() < 0.5 and a % COLUMNS != b % COLUMNS:
        relation = "left of" if a % COLUMNS < b % COLUMNS else "right of"
    elif a // COLUMNS != b // COLUMNS:
        relation = "above" if a // COLUMNS < b // COLUMNS else "below"
    else:
        return None
    return f"the {first.name} at {place(a)} is {relation} the {second.name} at {place(b)} ."


def _group(rng: random.Random) -> tuple[str, str]:
    attribute = rng.choice(("color", "shape", "size"))
    return attribute, rng.choice({"color": tuple(COLORS), "shape": SHAPES, "size": SIZES}[attribute])


def _counting(scene: Scene, rng: random.Random) -> str:
    return counting(scene, *_group(rng))


def _absence(scene: Scene, rng: random.Random) -> str | None:
    color, shape = rng.choice(tuple(COLORS)), rng.choice(SHAPES)
    if any((tile.color, tile.shape) == (color, shape) for _, tile in scene.tiles):
        return None
    return f"there is no {color} {shape} ."


def _comparison(scene: Scene, rng: random.Random) -> str | None:
    (attribute, first), (other, second) = _group(rng), _group(rng)
    if (attribute, first) == (other, second):
        return None
    a = sum(getattr(tile, attribute) == first for _, tile in scene.tiles)
    b = sum(getattr(tile, other) == second for _, tile in scene.tiles)
    relation = "more than" if a > b else "not more than"
    return f"there are {a} {phrase(attribute, first)} , {relation} {b} {phrase(other, second)} ."


_REMARKS = (_random_cell, _relation, _counting, _absence, _comparison)
