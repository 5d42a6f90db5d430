"""The question families: each draws a scene, asks about it, and gives the exact answer with the steps that lead there.

A family is one function from a `Maker` to a `Draft` and one row of wordings. Wordings of `PARAPHRASES` appear only in
the split `test_paraphrase`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from balanced_thinking.data.world.scene import COLORS, COLUMNS, HIDDEN, ROWS, SHAPES, SIZES, Scene, Tile, place

LETTERS = "ABCD"
STEPS = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}


@dataclass(frozen=True)
class Draft:
    """A question before its wording: the scene, the words that fill the template, the answer and the steps to it."""

    scene: Scene
    slots: dict[str, str]
    answer: str
    steps: tuple[str, ...]
    choices: tuple[str, ...] = ()


@dataclass
class Maker:
    """Draws tiles and scenes: only the colour-shape pairs (one that is listed twice, twice as often) and numbers of
    objects that a split allows."""

    rng: random.Random
    pairs: Sequence[tuple[str, str]]
    objects: tuple[int, int]
    _count: int = field(init=False)

    def __post_init__(self) -> None:
        self._count = self.rng.randint(*self.objects)

    @property
    def count(self) -> int:
        return self._count

    @property
    def many(self) -> bool:
        """Whether this is the split with more objects than training shows."""
        return self.objects[0] > COLUMNS + 2

    def tile(self, allowed: Callable[[str, str, str], bool] = lambda color, shape, size: True) -> Tile:
        """A random shape for which `allowed(color, shape, size)` holds."""
        pool = [(c, s, z) for c, s in self.pairs for z in SIZES if allowed(c, s, z)]
        color, shape, size = self.rng.choice(pool)
        return Tile(color, shape, size)

    def scatter(self, tiles: Sequence[Tile]) -> Scene:
        """The tiles in random cells of an otherwise empty grid."""
        cells: list[Tile | None] = [None] * (ROWS * COLUMNS)
        for cell, tile in zip(self.rng.sample(range(len(cells)), len(tiles)), tiles, strict=True):
            cells[cell] = tile
        return Scene(tuple(cells))


def _attribute_of(tile: Tile, attribute: str) -> str:
    return str(getattr(tile, attribute))


def phrase(attribute: str, value: str) -> str:
    """A group of tiles in words: `red tiles`, `circles`, `small tiles`."""
    if attribute == "shape":
        return "crosses" if value == "cross" else f"{value}s"
    return f"{value} tiles"


def counting(scene: Scene, attribute: str, value: str) -> str:
    """The sentence that counts a group of tiles aloud."""
    cells = [i for i, tile in scene.tiles if _attribute_of(tile, attribute) == value]
    group = phrase(attribute, value)
    if not cells:
        return f"there are no {group} , that makes 0 ."
    return f"counting {group} : " + " , ".join(f"{place(c)} makes {n}" for n, c in enumerate(cells, 1)) + " ."


def _group(maker: Maker, attribute: str, value: str, size: int, inside: bool) -> list[Tile]:
    position = {"color": 0, "shape": 1, "size": 2}[attribute]
    return [maker.tile(lambda *tile: (tile[position] == value) == inside) for _ in range(size)]


def _values(attribute: str) -> tuple[str, ...]:
    return {"color": tuple(COLORS), "shape": SHAPES, "size": SIZES}[attribute]


def attribute(maker: Maker) -> Draft:
    scene = maker.scatter([maker.tile() for _ in range(maker.count)])
    cell, tile = maker.rng.choice(scene.tiles)
    asked = maker.rng.choice(("color", "shape", "size"))
    answer = _attribute_of(tile, asked)
    steps = (f"{place(cell)} : {tile.name} .", f"its {asked} is {answer} .")
    return Draft(scene, {"attribute": asked, "place": place(cell)}, answer, steps)


def count(maker: Maker) -> Draft:
    asked = maker.rng.choice(("color", "shape", "size"))
    value = maker.rng.choice(_values(asked))
    inside = maker.rng.randint(0, maker.count)
    tiles = _group(maker, asked, value, inside, True) + _group(maker, asked, value, maker.count - inside, False)
    scene = maker.scatter(tiles)
    steps = (counting(scene, asked, value), f"so there are {inside} .")
    return Draft(scene, {"group": phrase(asked, value)}, str(inside), steps)


def compare(maker: Maker) -> Draft:
    asked = maker.rng.choice(("color", "shape"))
    first, second = maker.rng.sample(_values(asked), 2)
    more = maker.rng.randint(1, (maker.count + 1) // 2)
    fewer = maker.rng.randint(0, more - 1)
    # "yes" is right in half of the questions; among the "no" a third are ties, so that counting is needed.
    yes = maker.rng.random() < 0.5
    tie = not yes and maker.rng.random() < 1 / 3
    a, b = (more, fewer) if yes else (fewer, fewer) if tie else (fewer, more)
    position = ("color", "shape").index(asked)
    rest = [maker.tile(lambda *t: t[position] not in (first, second)) for _ in range(max(0, maker.count - a - b))]
    tiles = _group(maker, asked, first, a, True) + _group(maker, asked, second, b, True) + rest
    scene = maker.scatter(tiles)
    verdict = f"{a} is more than {b} ." if yes else f"{a} is not more than {b} ."
    steps = (counting(scene, asked, first), counting(scene, asked, second), verdict)
    slots = {"first": phrase(asked, first), "second": phrase(asked, second)}
    return Draft(scene, slots, "yes" if yes else "no", steps)


def spatial(maker: Maker) -> Draft:
    relation = maker.rng.choice(tuple(STEPS))
    down, right = STEPS[relation]
    anchors = [
        i for i in range(ROWS * COLUMNS) if 0 <= i // COLUMNS + down < ROWS and 0 <= i % COLUMNS + right < COLUMNS
    ]
    cell = maker.rng.choice(anchors)
    neighbour_cell = cell + down * COLUMNS + right
    anchor = maker.tile()

    def other() -> Tile:
        return maker.tile(lambda color, shape, size: (color, shape) != (anchor.color, anchor.shape))

    cells: list[Tile | None] = [None] * (ROWS * COLUMNS)
    cells[cell], cells[neighbour_cell] = anchor, (neighbour := other())
    free = [i for i, tile in enumerate(cells) if tile is None]
    for i in maker.rng.sample(free, maker.count - 2):
        cells[i] = other()
    asked = maker.rng.choice(("color", "shape"))
    answer = _attribute_of(neighbour, asked)
    steps = (
        f"the {anchor.noun} is at {place(cell)} .",
        f"{relation} it is {place(neighbour_cell)} : {neighbour.name} .",
        f"its {asked} is {answer} .",
    )
    return Draft(Scene(tuple(cells)), {"attribute": asked, "relation": relation, "anchor": anchor.noun}, answer, steps)


def arithmetic(maker: Maker) -> Draft:
    first_color, second_color = maker.rng.sample(tuple(COLORS), 2)
    a, b = maker.rng.randint(1, 9), maker.rng.randint(1, 9)
    operation = maker.rng.choice(("plus", "minus"))
    if operation == "minus":
        a, b = max(a, b), min(a, b)
    answer = a + b if operation == "plus" else a - b
    digits = [Tile(first_color, digit=a), Tile(second_color, digit=b)]
    scene = maker.scatter(digits + [maker.tile() for _ in range(maker.count - 2)])
    where = {tile: place(cell) for cell, tile in scene.tiles}
    steps = (
        *tuple(f"the {t.color} digit is {t.digit} at {where[t]} ." for t in digits),
        f"{a} {operation} {b} is {answer} .",
    )
    slots = {"first": f"{first_color} digit", "second": f"{second_color} digit", "operation": operation}
    return Draft(scene, slots, str(answer), steps)


def odd_one_out(maker: Maker) -> Draft:
    asked = maker.rng.choice(("color", "shape"))
    common, odd = maker.rng.sample(_values(asked), 2)
    tiles = _group(maker, asked, common, maker.count - 1, True) + _group(maker, asked, odd, 1, True)
    scene = maker.scatter(tiles)
    listing = " , ".join(f"{place(cell)} is {_attribute_of(tile, asked)}" for cell, tile in scene.tiles)
    steps = (f"{listing} .", f"all are {common} but one is {odd} .")
    return Draft(scene, {"attribute": asked}, odd, steps)


def pattern(maker: Maker) -> Draft:
    """Two rows (three in the split with more objects), coloured by row or by column, with one tile hidden."""
    rows = ROWS if maker.many else ROWS - 1
    by_row = maker.rng.random() < 0.5
    colors = maker.rng.sample(tuple(COLORS), COLUMNS)
    hidden = maker.rng.randrange(rows * COLUMNS)
    cells: list[Tile | None] = [None] * (ROWS * COLUMNS)
    for i in range(rows * COLUMNS):
        color = colors[i // COLUMNS if by_row else i % COLUMNS]
        cells[i] = HIDDEN if i == hidden else _group(maker, "color", color, 1, True)[0]
    scene, row, column = Scene(tuple(cells)), hidden // COLUMNS, hidden % COLUMNS
    answer = colors[row if by_row else column]
    if by_row:
        line, kind = [i for i in range(rows * COLUMNS) if i // COLUMNS == row and i != hidden], "row"
    else:
        line, kind = [i for i in range(rows * COLUMNS) if i % COLUMNS == column and i != hidden], "column"
    listing = " , ".join(f"{place(i)} is {answer}" for i in line)
    steps = (
        f"the question mark is at {place(hidden)} .",
        f"each {kind} has one color .",
        f"{listing} .",
        f"so the hidden color is {answer} .",
    )
    return Draft(scene, {}, answer, steps)


def multiple_choice(maker: Maker) -> Draft:
    draft = attribute(maker)
    while draft.slots["attribute"] == "size":
        draft = attribute(maker)
    values = [v for v in _values(draft.slots["attribute"]) if v != draft.answer]
    options = [*maker.rng.sample(values, len(LETTERS) - 1), draft.answer]
    maker.rng.shuffle(options)
    letter = LETTERS[options.index(draft.answer)]
    listing = " ".join(f"{name} {option}" for name, option in zip(LETTERS, options, strict=True))
    steps = (*draft.steps, f"option {letter} is {draft.answer} .")
    return Draft(draft.scene, draft.slots | {"options": listing}, letter, steps, tuple(options))


FAMILIES: dict[str, Callable[[Maker], Draft]] = {
    "attribute": attribute,
    "count": count,
    "compare": compare,
    "spatial": spatial,
    "arithmetic": arithmetic,
    "odd_one_out": odd_one_out,
    "pattern": pattern,
    "multiple_choice": multiple_choice,
}

WORDINGS: dict[str, tuple[str, ...]] = {
    "attribute": ("what is the {attribute} of the tile at {place} ?", "which {attribute} has the tile at {place} ?"),
    "count": ("how many {group} are there ?", "what is the number of {group} ?"),
    "compare": ("are there more {first} than {second} ?", "is the number of {first} more than of {second} ?"),
    "spatial": (
        "what is the {attribute} of the tile {relation} the {anchor} ?",
        "which {attribute} has the tile {relation} the {anchor} ?",
    ),
    "arithmetic": (
        "what is the {first} {operation} the {second} ?",
        "the {first} {operation} the {second} makes what ?",
    ),
    "odd_one_out": (
        "all tiles but one have the same {attribute} , which is the odd one ?",
        "which {attribute} is the odd one ?",
    ),
    "pattern": ("which color has the question mark ?", "what is the color of the hidden tile ?"),
    "multiple_choice": (
        "what is the {attribute} of the tile at {place} ? {options}",
        "which {attribute} has the tile at {place} ? {options}",
    ),
}

PARAPHRASES: dict[str, tuple[str, ...]] = {
    "attribute": ("look at {place} : which {attribute} is there ?", "at {place} there is a tile of what {attribute} ?"),
    "count": ("the number of {group} is what ?", "there are how many {group} ?"),
    "compare": ("more {first} than {second} , yes or no ?", "are {first} more in number than {second} ?"),
    "spatial": (
        "{relation} the {anchor} there is a tile of what {attribute} ?",
        "look {relation} the {anchor} : which {attribute} is there ?",
    ),
    "arithmetic": ("{first} {operation} {second} is what ?", "look at the digits : {first} {operation} {second} ?"),
    "odd_one_out": ("one tile is the odd one , what is the {attribute} ?", "the odd one has which {attribute} ?"),
    "pattern": ("the hidden tile has which color ?", "look at the question mark : what is the color ?"),
    "multiple_choice": (
        "look at {place} : which {attribute} is there ? {options}",
        "at {place} there is a tile of what {attribute} ? {options}",
    ),
}
