"""The single steps that traces consist of, each as a request with the sentence that fulfils it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from balanced_thinking.data.world.scene import COLORS, COLUMNS, PLACES, ROWS, SHAPES, SIZES, Scene, place_name
from balanced_thinking.data.world.sentences import (
    GROUPS,
    STEPS,
    cell_sentence,
    counting_sentence,
    neighbour_sentence,
    tiles_in_words,
)

_WORDS = (
    *(*PLACES, *COLORS, *SHAPES, *SIZES, "what", "is", "the", "of", "at", "has", "there", "are", "how", "many", "more"),
    *("than", "tiles", "tile"),
)


class Skill(NamedTuple):
    """A request, and the sentence that fulfils it."""

    request: str
    sentence: str


def ask_skill(scene: Scene, rng: random.Random) -> Skill:
    """One step of a trace by itself."""
    kinds = (
        _ask_count,
        _ask_cell_content,
        _ask_tile_place,
        _ask_neighbour,
        _ask_attribute_of_all_tiles,
        _ask_digit_calculation,
        _ask_number_comparison,
    )
    return rng.choice(kinds)(scene, rng)


def ask_repetition(scene: Scene, rng: random.Random) -> Skill:
    """Random words to repeat: mostly at once, else after a sentence for every cell."""
    words = " ".join(rng.choices(_WORDS, k=rng.randint(3, 20)))
    cells = " ".join(cell_sentence(scene, cell) for cell in range(len(scene.cells)))
    if rng.random() < 0.8:
        return Skill(f"{words} once more ?", words)
    return Skill(f"{words} what is there and once more ?", f"{cells} {words}")


def random_steps(scene: Scene, rng: random.Random) -> Iterator[str]:
    """Steps in random order, without end. A neighbour's sentence follows only the sentence that locates the tile."""
    kinds = (
        _ask_count,
        _ask_tile_place,
        _ask_tile_place,
        _ask_attribute_of_all_tiles,
        _ask_digit_calculation,
        _ask_number_comparison,
    )
    while True:
        step = rng.choice(kinds)(scene, rng).sentence
        yield step
        if step.startswith("the ") and " digit " not in step:
            neighbour = _random_neighbour_sentence(scene, step.split()[-2], rng)
            if neighbour is not None:
                yield neighbour


def _random_neighbour_sentence(scene: Scene, place: str, rng: random.Random) -> str | None:
    """What is next to the cell of this name, in a random direction; None beyond the edge."""
    relation, (down, right) = rng.choice(tuple(STEPS.items()))
    row, column = divmod(PLACES.index(place), COLUMNS)
    inside = 0 <= row + down < ROWS and 0 <= column + right < COLUMNS
    return neighbour_sentence(scene, PLACES.index(place), relation) if inside else None


def _ask_count(scene: Scene, rng: random.Random) -> Skill:
    group = rng.choice(GROUPS)
    return Skill(f"counting {tiles_in_words(*group)} ?", counting_sentence(scene, *group))


def _ask_cell_content(scene: Scene, rng: random.Random) -> Skill:
    cell = rng.randrange(len(scene.cells))
    return Skill(f"what is at {place_name(cell)} ?", cell_sentence(scene, cell))


def _ask_tile_place(scene: Scene, rng: random.Random) -> Skill:
    """Where a tile is whose name no other tile has."""
    names = [tile.short_name for _, tile in scene.tiles]
    unique = [(cell, tile) for cell, tile in scene.tiles if names.count(tile.short_name) == 1]
    if not unique:
        return _ask_cell_content(scene, rng)
    cell, tile = rng.choice(unique)
    if tile.digit is not None:
        digit = f"the {tile.color} digit"
        return Skill(f"where is {digit} ?", f"{digit} is {tile.digit} at {place_name(cell)} .")
    return Skill(f"where is the {tile.short_name} ?", f"the {tile.short_name} is at {place_name(cell)} .")


def _ask_neighbour(scene: Scene, rng: random.Random) -> Skill:
    relation, (down, right) = rng.choice(tuple(STEPS.items()))
    row = rng.choice([r for r in range(ROWS) if 0 <= r + down < ROWS])
    column = rng.choice([c for c in range(COLUMNS) if 0 <= c + right < COLUMNS])
    cell = row * COLUMNS + column
    return Skill(f"what is {relation} {place_name(cell)} ?", neighbour_sentence(scene, cell, relation))


def _ask_attribute_of_all_tiles(scene: Scene, rng: random.Random) -> Skill:
    attribute = rng.choice(("color", "shape"))
    shown = [(cell, getattr(tile, attribute)) for cell, tile in scene.tiles if tile.shape]
    if not shown:
        return _ask_cell_content(scene, rng)
    values = " , ".join(f"{place_name(cell)} is {value}" for cell, value in shown)
    return Skill(f"what {attribute} has each tile ?", f"{values} .")


def _ask_digit_calculation(scene: Scene, rng: random.Random) -> Skill:
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    if rng.random() < 0.5:
        return Skill(f"what is {a} plus {b} ?", f"{a} plus {b} is {a + b} .")
    return Skill(f"what is {max(a, b)} minus {min(a, b)} ?", f"{max(a, b)} minus {min(a, b)} is {abs(a - b)} .")


def _ask_number_comparison(scene: Scene, rng: random.Random) -> Skill:
    a, b = rng.randint(0, 5), rng.randint(0, 5)
    return Skill(f"is {a} more than {b} ?", f"{a} is more than {b} ." if a > b else f"{a} is not more than {b} .")
