"""The question families. Each draws a scene, asks about it, and gives the exact answer with the steps to it.

A family is one function from a `SceneSampler` to a `QuestionDraft`, and one row of `wordings`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from balanced_thinking.data.world.sampler import SceneSampler
from balanced_thinking.data.world.scene import COLORS, COLUMNS, HIDDEN, ROWS, SHAPES, SIZES, Scene, Tile, place_name
from balanced_thinking.data.world.sentences import STEPS, counting_sentence, tiles_in_words

LETTERS = "ABCD"


@dataclass(frozen=True)
class QuestionDraft:
    """A question before its wording.

    slots: the words that fill a wording's placeholders. steps: the sentences that lead to the answer.
    """

    scene: Scene
    slots: dict[str, str]
    answer: str
    steps: tuple[str, ...]
    choices: tuple[str, ...] = ()


def _attribute_of(tile: Tile, attribute: str) -> str:
    return str(getattr(tile, attribute))


def _draw_group(sampler: SceneSampler, attribute: str, value: str, size: int, inside: bool) -> list[Tile]:
    """`size` tiles that all have this value of the attribute (`inside`), or that all have another one."""
    position = {"color": 0, "shape": 1, "size": 2}[attribute]
    return [sampler.draw_tile(lambda *tile: (tile[position] == value) == inside) for _ in range(size)]


def _attribute_values(attribute: str) -> tuple[str, ...]:
    return {"color": tuple(COLORS), "shape": SHAPES, "size": SIZES}[attribute]


def ask_attribute(sampler: SceneSampler) -> QuestionDraft:
    """The color, shape or size of the tile in a cell."""
    scene = sampler.scatter_tiles([sampler.draw_tile() for _ in range(sampler.object_count)])
    cell, tile = sampler.rng.choice(scene.tiles)
    asked = sampler.rng.choice(("color", "shape", "size"))
    answer = _attribute_of(tile, asked)
    steps = (f"{place_name(cell)} : {tile.name} .", f"its {asked} is {answer} .")
    return QuestionDraft(scene, {"attribute": asked, "place": place_name(cell)}, answer, steps)


def ask_count(sampler: SceneSampler) -> QuestionDraft:
    """How many tiles a group has."""
    asked = sampler.rng.choice(("color", "shape", "size"))
    value = sampler.rng.choice(_attribute_values(asked))
    inside = sampler.rng.randint(0, sampler.object_count)
    tiles = _draw_group(sampler, asked, value, inside, True) + _draw_group(
        sampler, asked, value, sampler.object_count - inside, False
    )
    scene = sampler.scatter_tiles(tiles)
    steps = (counting_sentence(scene, asked, value), f"so there are {inside} .")
    return QuestionDraft(scene, {"group": tiles_in_words(asked, value)}, str(inside), steps)


def ask_comparison(sampler: SceneSampler) -> QuestionDraft:
    """Whether one group has more tiles than another."""
    asked = sampler.rng.choice(("color", "shape"))
    first, second = sampler.rng.sample(_attribute_values(asked), 2)
    more = sampler.rng.randint(1, (sampler.object_count + 1) // 2)
    fewer = sampler.rng.randint(0, more - 1)
    # "yes" is right in half of the questions. A third of the "no" are ties, so that counting is necessary.
    yes = sampler.rng.random() < 0.5
    tie = not yes and sampler.rng.random() < 1 / 3
    a, b = (more, fewer) if yes else (fewer, fewer) if tie else (fewer, more)
    position = ("color", "shape").index(asked)
    rest = [
        sampler.draw_tile(lambda *t: t[position] not in (first, second))
        for _ in range(max(0, sampler.object_count - a - b))
    ]
    tiles = _draw_group(sampler, asked, first, a, True) + _draw_group(sampler, asked, second, b, True) + rest
    scene = sampler.scatter_tiles(tiles)
    verdict = f"{a} is more than {b} ." if yes else f"{a} is not more than {b} ."
    steps = (counting_sentence(scene, asked, first), counting_sentence(scene, asked, second), verdict)
    slots = {"first": tiles_in_words(asked, first), "second": tiles_in_words(asked, second)}
    return QuestionDraft(scene, slots, "yes" if yes else "no", steps)


def ask_neighbour(sampler: SceneSampler) -> QuestionDraft:
    """The color or shape of the tile next to a named tile."""
    relation = sampler.rng.choice(tuple(STEPS))
    down, right = STEPS[relation]
    anchors = [
        i for i in range(ROWS * COLUMNS) if 0 <= i // COLUMNS + down < ROWS and 0 <= i % COLUMNS + right < COLUMNS
    ]
    cell = sampler.rng.choice(anchors)
    neighbour_cell = cell + down * COLUMNS + right
    anchor = sampler.draw_tile()

    def draw_other() -> Tile:
        return sampler.draw_tile(lambda color, shape, size: (color, shape) != (anchor.color, anchor.shape))

    cells: list[Tile | None] = [None] * (ROWS * COLUMNS)
    cells[cell], cells[neighbour_cell] = anchor, (neighbour := draw_other())
    free = [i for i, tile in enumerate(cells) if tile is None]
    for i in sampler.rng.sample(free, sampler.object_count - 2):
        cells[i] = draw_other()
    asked = sampler.rng.choice(("color", "shape"))
    answer = _attribute_of(neighbour, asked)
    steps = (
        f"the {anchor.short_name} is at {place_name(cell)} .",
        f"{relation} it is {place_name(neighbour_cell)} : {neighbour.name} .",
        f"its {asked} is {answer} .",
    )
    return QuestionDraft(
        Scene(tuple(cells)), {"attribute": asked, "relation": relation, "anchor": anchor.short_name}, answer, steps
    )


def ask_arithmetic(sampler: SceneSampler) -> QuestionDraft:
    """The sum or difference of two digits."""
    first_color, second_color = sampler.rng.sample(tuple(COLORS), 2)
    a, b = sampler.rng.randint(1, 9), sampler.rng.randint(1, 9)
    operation = sampler.rng.choice(("plus", "minus"))
    if operation == "minus":
        a, b = max(a, b), min(a, b)
    answer = a + b if operation == "plus" else a - b
    digits = [Tile(first_color, digit=a), Tile(second_color, digit=b)]
    scene = sampler.scatter_tiles(digits + [sampler.draw_tile() for _ in range(sampler.object_count - 2)])
    where = {tile: place_name(cell) for cell, tile in scene.tiles}
    steps = (
        *tuple(f"the {t.color} digit is {t.digit} at {where[t]} ." for t in digits),
        f"{a} {operation} {b} is {answer} .",
    )
    slots = {"first": f"{first_color} digit", "second": f"{second_color} digit", "operation": operation}
    return QuestionDraft(scene, slots, str(answer), steps)


def ask_odd_one_out(sampler: SceneSampler) -> QuestionDraft:
    """The color or shape of the one tile that differs."""
    asked = sampler.rng.choice(("color", "shape"))
    common, odd = sampler.rng.sample(_attribute_values(asked), 2)
    tiles = _draw_group(sampler, asked, common, sampler.object_count - 1, True) + _draw_group(
        sampler, asked, odd, 1, True
    )
    scene = sampler.scatter_tiles(tiles)
    listing = " , ".join(f"{place_name(cell)} is {_attribute_of(tile, asked)}" for cell, tile in scene.tiles)
    steps = (f"{listing} .", f"all are {common} but one is {odd} .")
    return QuestionDraft(scene, {"attribute": asked}, odd, steps)


def ask_pattern(sampler: SceneSampler) -> QuestionDraft:
    """Two rows (three in the split with more objects), colored by row or by column, with one tile hidden."""
    rows = ROWS if sampler.exceeds_training_objects else ROWS - 1
    by_row = sampler.rng.random() < 0.5
    colors = sampler.rng.sample(tuple(COLORS), COLUMNS)
    hidden = sampler.rng.randrange(rows * COLUMNS)
    cells: list[Tile | None] = [None] * (ROWS * COLUMNS)
    for i in range(rows * COLUMNS):
        color = colors[i // COLUMNS if by_row else i % COLUMNS]
        cells[i] = HIDDEN if i == hidden else _draw_group(sampler, "color", color, 1, True)[0]
    scene, row, column = Scene(tuple(cells)), hidden // COLUMNS, hidden % COLUMNS
    answer = colors[row if by_row else column]
    if by_row:
        line, kind = [i for i in range(rows * COLUMNS) if i // COLUMNS == row and i != hidden], "row"
    else:
        line, kind = [i for i in range(rows * COLUMNS) if i % COLUMNS == column and i != hidden], "column"
    listing = " , ".join(f"{place_name(i)} is {answer}" for i in line)
    steps = (
        f"the question mark is at {place_name(hidden)} .",
        f"each {kind} has one color .",
        f"{listing} .",
        f"so the hidden color is {answer} .",
    )
    return QuestionDraft(scene, {}, answer, steps)


def ask_multiple_choice(sampler: SceneSampler) -> QuestionDraft:
    """`ask_attribute` with four lettered options."""
    draft = ask_attribute(sampler)
    while draft.slots["attribute"] == "size":
        draft = ask_attribute(sampler)
    values = [v for v in _attribute_values(draft.slots["attribute"]) if v != draft.answer]
    options = [*sampler.rng.sample(values, len(LETTERS) - 1), draft.answer]
    sampler.rng.shuffle(options)
    letter = LETTERS[options.index(draft.answer)]
    listing = " ".join(f"{name} {option}" for name, option in zip(LETTERS, options, strict=True))
    steps = (*draft.steps, f"option {letter} is {draft.answer} .")
    return QuestionDraft(draft.scene, draft.slots | {"options": listing}, letter, steps, tuple(options))


FAMILIES: dict[str, Callable[[SceneSampler], QuestionDraft]] = {
    "attribute": ask_attribute,
    "count": ask_count,
    "compare": ask_comparison,
    "spatial": ask_neighbour,
    "arithmetic": ask_arithmetic,
    "odd_one_out": ask_odd_one_out,
    "pattern": ask_pattern,
    "multiple_choice": ask_multiple_choice,
}
