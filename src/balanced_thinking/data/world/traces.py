"""Truthful text about a scene: traces of thought of a wanted length, whole descriptions, and single skills."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import permutations, product

from balanced_thinking.data.world.questions import STEPS, counting, phrase
from balanced_thinking.data.world.scene import COLORS, COLUMNS, PLACES, ROWS, SHAPES, SIZES, Scene, Tile, place

_GROUPS = tuple(
    (attribute, value)
    for attribute, values in (("color", tuple(COLORS)), ("shape", SHAPES), ("size", SIZES))
    for value in values
)


_WORDS = (
    *(*PLACES, *COLORS, *SHAPES, *SIZES, "what", "is", "the", "of", "at", "has", "there", "are", "how", "many", "more"),
    *("than", "tiles", "tile"),
)


def describe(scene: Scene, rng: random.Random) -> str:
    """What every cell holds, in random order."""
    return " ".join(_cell(scene, cell) for cell in rng.sample(range(len(scene.cells)), len(scene.cells)))


def remark(scene: Scene, words: int, rng: random.Random) -> str:
    """About `words` words on relations, groups and numbers."""
    return " ".join(_until(_remarks(scene, rng), words))


def skill(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """One request and the sentence that meets it: what the steps of a trace are made of, each by itself."""
    return rng.choice((_count_aloud, _look, _find, _look_aside, _list, _calculate, _weigh))(scene, rng)


def account(scene: Scene, words: int, rng: random.Random) -> str:
    """Every cell in order, then about `words` words of steps that can be read off what was said."""
    cells = [_cell(scene, cell) for cell in range(len(scene.cells))]
    return " ".join([*cells, *_until(_steps(scene, rng), words)])


def quote(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """Random words, to be said again: mostly at once, else after every cell was named."""
    words = " ".join(rng.choices(_WORDS, k=rng.randint(3, 20)))
    cells = " ".join(_cell(scene, cell) for cell in range(len(scene.cells)))
    if rng.random() < 0.8:
        return f"{words} once more ?", words
    return f"{words} what is there and once more ?", f"{cells} {words}"


def think(scene: Scene, question: str, steps: Sequence[str], words: int) -> str:
    """A trace of about `words` words: what is seen, group by group, the question in its own words where there is room
    for it, then the `steps` that lead to the answer.

    The order never varies: what a trace says next follows from the picture, the question and what was said before.
    """
    end = [f"the question : {question.replace(' ?', '')} .", *steps]
    if _length(end) > words:
        end = list(steps)
    return " ".join([*_until(_survey(scene), words - _length(end)), *end])


def _length(sentences: Sequence[str]) -> int:
    return sum(len(sentence.split()) for sentence in sentences)


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


def _steps(scene: Scene, rng: random.Random) -> Iterator[str]:
    """Steps in random order, without end; one beside a tile follows the sentence that says where the tile is."""
    while True:
        step = rng.choice((_count_aloud, _find, _find, _list, _calculate, _weigh))(scene, rng)[1]
        yield step
        if step.startswith("the ") and " digit " not in step and (aside := _aside(scene, step.split()[-2], rng)):
            yield aside


def _aside(scene: Scene, where: str, rng: random.Random) -> str | None:
    """What is beside the cell of this name, in a random direction; None beyond the edge."""
    relation, (down, right) = rng.choice(tuple(STEPS.items()))
    row, column = divmod(PLACES.index(where), COLUMNS)
    inside = 0 <= row + down < ROWS and 0 <= column + right < COLUMNS
    return _beside(scene, PLACES.index(where), relation) if inside else None


def _beside(scene: Scene, cell: int, relation: str) -> str:
    down, right = STEPS[relation]
    return f"{relation} it is {_cell(scene, cell + down * COLUMNS + right)}"


def _count_aloud(scene: Scene, rng: random.Random) -> tuple[str, str]:
    group = rng.choice(_GROUPS)
    return f"counting {phrase(*group)} ?", counting(scene, *group)


def _look(scene: Scene, rng: random.Random) -> tuple[str, str]:
    cell = rng.randrange(len(scene.cells))
    return f"what is at {place(cell)} ?", _cell(scene, cell)


def _find(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """Where a tile is that no other one could be mistaken for."""
    nouns = [tile.noun for _, tile in scene.tiles]
    found = [(cell, tile) for cell, tile in scene.tiles if nouns.count(tile.noun) == 1]
    if not found:
        return _look(scene, rng)
    cell, tile = rng.choice(found)
    if tile.digit is not None:
        return f"where is the {tile.color} digit ?", f"the {tile.color} digit is {tile.digit} at {place(cell)} ."
    return f"where is the {tile.noun} ?", f"the {tile.noun} is at {place(cell)} ."


def _look_aside(scene: Scene, rng: random.Random) -> tuple[str, str]:
    relation, (down, right) = rng.choice(tuple(STEPS.items()))
    row = rng.choice([r for r in range(ROWS) if 0 <= r + down < ROWS])
    column = rng.choice([c for c in range(COLUMNS) if 0 <= c + right < COLUMNS])
    cell = row * COLUMNS + column
    return f"what is {relation} {place(cell)} ?", _beside(scene, cell, relation)


def _list(scene: Scene, rng: random.Random) -> tuple[str, str]:
    attribute = rng.choice(("color", "shape"))
    shown = [(cell, getattr(tile, attribute)) for cell, tile in scene.tiles if tile.shape]
    if not shown:
        return _look(scene, rng)
    return f"what {attribute} has each tile ?", " , ".join(f"{place(cell)} is {value}" for cell, value in shown) + " ."


def _calculate(scene: Scene, rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    if rng.random() < 0.5:
        return f"what is {a} plus {b} ?", f"{a} plus {b} is {a + b} ."
    return f"what is {max(a, b)} minus {min(a, b)} ?", f"{max(a, b)} minus {min(a, b)} is {abs(a - b)} ."


def _weigh(scene: Scene, rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(0, 5), rng.randint(0, 5)
    return f"is {a} more than {b} ?", f"{a} is more than {b} ." if a > b else f"{a} is not more than {b} ."
