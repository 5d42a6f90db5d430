"""Truthful text about a scene: the sentences that pad a trace of thought to a wanted length, and whole descriptions."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import permutations, product

from balanced_thinking.data.world.questions import counting, phrase
from balanced_thinking.data.world.scene import COLORS, COLUMNS, SHAPES, SIZES, Scene, Tile, place

_GROUPS = tuple(
    (attribute, value)
    for attribute, values in (("color", tuple(COLORS)), ("shape", SHAPES), ("size", SIZES))
    for value in values
)


def describe(scene: Scene, rng: random.Random) -> str:
    """What every cell holds, in random order."""
    return " ".join(_cell(scene, cell) for cell in rng.sample(range(len(scene.cells)), len(scene.cells)))


def remark(scene: Scene, words: int, rng: random.Random) -> str:
    """About `words` words on relations, groups and numbers."""
    return " ".join(_until(_remarks(scene, rng), words))


def think(scene: Scene, steps: Sequence[str], words: int) -> str:
    """A trace of about `words` words: what is seen, group by group, then the `steps` that lead to the answer.

    The order never varies: what a trace says next follows from the picture, the question and what was said before.
    """
    needed = words - sum(len(step.split()) for step in steps)
    return " ".join([*_until(_survey(scene), needed), *steps])


def _survey(scene: Scene) -> Iterator[str]:
    """Every true sentence of a kind, kind by kind: cells, groups, relations, what is missing, comparisons."""
    yield from (_cell(scene, cell) for cell in range(len(scene.cells)))
    yield from (counting(scene, *group) for group in _GROUPS)
    yield from (_relation(scene, a, b) for a, b in permutations(scene.tiles, 2))
    yield from filter(None, (_absence(scene, color, shape) for color, shape in product(COLORS, SHAPES)))
    yield from (_comparison(scene, a, b) for a, b in permutations(_GROUPS, 2))


def _remarks(scene: Scene, rng: random.Random) -> Iterator[str]:
    """True sentences about the scene in random order, without end."""
    while True:
        kind = rng.randrange(5)
        if kind == 0:
            yield _cell(scene, rng.randrange(len(scene.cells)))
        elif kind == 1:
            yield _relation(scene, *rng.sample(scene.tiles, 2))
        elif kind == 2:
            yield counting(scene, *rng.choice(_GROUPS))
        elif kind == 3:
            yield _absence(scene, rng.choice(tuple(COLORS)), rng.choice(SHAPES)) or _cell(scene, 0)
        else:
            yield _comparison(scene, *rng.sample(_GROUPS, 2))


def _until(sentences: Iterator[str], words: int) -> list[str]:
    """As many sentences as come nearest to `words` words."""
    chosen: list[str] = []
    total = 0
    for sentence in sentences:
        length = len(sentence.split())
        if total + length / 2 > words:
            break
        chosen.append(sentence)
        total += length
    return chosen


def _cell(scene: Scene, cell: int) -> str:
    tile = scene.cells[cell]
    return f"{place(cell)} : {'empty' if tile is None else tile.name} ."


def _relation(scene: Scene, first: tuple[int, Tile], second: tuple[int, Tile]) -> str:
    (a, one), (b, other) = first, second
    if a % COLUMNS != b % COLUMNS:
        relation = "left of" if a % COLUMNS < b % COLUMNS else "right of"
    else:
        relation = "above" if a < b else "below"
    return f"the {one.name} at {place(a)} is {relation} the {other.name} at {place(b)} ."


def _absence(scene: Scene, color: str, shape: str) -> str | None:
    if any((tile.color, tile.shape) == (color, shape) for _, tile in scene.tiles):
        return None
    return f"there is no {color} {shape} ."


def _comparison(scene: Scene, first: tuple[str, str], second: tuple[str, str]) -> str:
    a, b = (sum(getattr(tile, attribute) == value for _, tile in scene.tiles) for attribute, value in (first, second))
    relation = "more than" if a > b else "not more than"
    return f"there are {a} {phrase(*first)} , {relation} {b} {phrase(*second)} ."
