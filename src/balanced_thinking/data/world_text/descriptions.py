"""A scene in English: where things are, what is there, and which cells trade places afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from balanced_thinking.data.world.scene import COLUMNS, PLACES, ROWS, Scene, Tile

LINES, COLUMN_NAMES = ("top", "middle", "bottom"), ("left", "middle", "right")
# The cells in English, in reading order.
CELLS = (
    *("top left", "top middle", "top right"),
    *("middle left", "center", "middle right"),
    *("bottom left", "bottom middle", "bottom right"),
)
CELL_OF = dict(zip(PLACES, CELLS, strict=True))  # by the world's name
SWAP_WAYS = (
    "Then the contents of the {a} and the {b} trade places.",
    "After that, the {a} and the {b} are swapped.",
    "Next, what is at the {a} and what is at the {b} change places.",
)
Swap = tuple[int, int]  # the numbers of two cells


def name_tile(tile: Tile | None) -> str:
    """A cell's content with its article."""
    return "nothing" if tile is None else f"a {tile.name}"


def join_words(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def describe_scene(scene: Scene, rng: Random, styles: Sequence[str]) -> str:
    """The scene in one of these `STYLES`."""
    return STYLES[rng.choice(styles)](scene, rng)


def _describe_tiles(scene: Scene, rng: Random) -> str:
    tiles = rng.sample(scene.tiles, len(scene.tiles))
    told = [f"There is {name_tile(tile)} at the {CELLS[cell]}." for cell, tile in tiles]
    return " ".join([f"A board of 3 by 3 cells has {len(tiles)} tiles.", *told, "All other cells are empty."])


def _describe_rows(scene: Scene, rng: Random) -> str:
    told = []
    for row, line in enumerate(LINES):
        cells = scene.cells[row * COLUMNS : (row + 1) * COLUMNS]
        content = join_words([name_tile(tile) for tile in cells])
        told.append(f"The {line} row has {content}." if any(cells) else f"The {line} row is empty.")
    return " ".join(["This is a board of three rows, each from left to right.", *told])


def _describe_coordinates(scene: Scene, rng: Random) -> str:
    told = [f"Row {cell // COLUMNS + 1}, column {cell % COLUMNS + 1}: {name_tile(tile)}." for cell, tile in scene.tiles]
    return " ".join(
        ["On a board of 3 by 3 cells, rows count from the top and columns from the left.", *told, "The rest is empty."]
    )


def _describe_columns(scene: Scene, rng: Random) -> str:
    told = []
    for column, line in enumerate(COLUMN_NAMES):
        content = join_words([name_tile(scene.cells[row * COLUMNS + column]) for row in range(ROWS)])
        told.append(f"The {line} column, from top to bottom, has {content}.")
    return " ".join(told)


def _describe_in_brackets(scene: Scene, rng: Random) -> str:
    tiles = rng.sample(scene.tiles, len(scene.tiles))
    return f"Somebody laid out {join_words([f'{name_tile(tile)} ({CELLS[cell]})' for cell, tile in tiles])}."


STYLES: dict[str, Callable[[Scene, Random], str]] = {
    "tiles": _describe_tiles,
    "rows": _describe_rows,
    "coordinates": _describe_coordinates,
    "columns": _describe_columns,
    "brackets": _describe_in_brackets,
}
TRAIN_STYLES, PARAPHRASE_STYLES = ("tiles", "rows", "coordinates"), ("columns", "brackets")


def swap_cells(scene: Scene, swap: Swap) -> Scene:
    """The scene with the contents of two cells exchanged."""
    cells, (a, b) = list(scene.cells), swap
    cells[a], cells[b] = cells[b], cells[a]
    return Scene(tuple(cells))


def name_swap(way: str, swap: Swap) -> str:
    """One of `SWAP_WAYS` with the names of the cells."""
    return way.format(a=CELLS[swap[0]], b=CELLS[swap[1]])
