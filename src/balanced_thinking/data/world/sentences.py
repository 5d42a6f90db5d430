"""Single true sentences about a scene."""

from __future__ import annotations

from balanced_thinking.data.world.scene import COLORS, COLUMNS, SHAPES, SIZES, Scene, Tile, place_name

# (rows down, columns right) to a neighbouring cell.
STEPS = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}
GROUPS = tuple(
    (attribute, value)
    for attribute, values in (("color", tuple(COLORS)), ("shape", SHAPES), ("size", SIZES))
    for value in values
)


def tiles_in_words(attribute: str, value: str) -> str:
    """A group of tiles in words: `red tiles`, `circles`, `small tiles`."""
    if attribute == "shape":
        return "crosses" if value == "cross" else f"{value}s"
    return f"{value} tiles"


def cell_sentence(scene: Scene, cell: int) -> str:
    """What is in a cell."""
    tile = scene.cells[cell]
    return f"{place_name(cell)} : {'empty' if tile is None else tile.name} ."


def counting_sentence(scene: Scene, attribute: str, value: str) -> str:
    """Count the tiles of a group one by one."""
    cells = [i for i, tile in scene.tiles if getattr(tile, attribute) == value]
    group = tiles_in_words(attribute, value)
    if not cells:
        return f"there are no {group} , that makes 0 ."
    return f"counting {group} : " + " , ".join(f"{place_name(c)} makes {n}" for n, c in enumerate(cells, 1)) + " ."


def neighbour_sentence(scene: Scene, cell: int, relation: str) -> str:
    """What is next to a cell, on the side that `relation` names."""
    down, right = STEPS[relation]
    return f"{relation} it is {cell_sentence(scene, cell + down * COLUMNS + right)}"


def relation_sentence(scene: Scene, first: tuple[int, Tile], second: tuple[int, Tile]) -> str:
    """Where the first of two (cell, tile) is, seen from the second."""
    (a, one), (b, other) = first, second
    if a % COLUMNS != b % COLUMNS:
        relation = "left of" if a % COLUMNS < b % COLUMNS else "right of"
    else:
        relation = "above" if a < b else "below"
    return f"the {one.name} at {place_name(a)} is {relation} the {other.name} at {place_name(b)} ."


def absence_sentence(scene: Scene, color: str, shape: str) -> str | None:
    """That there is no such tile; None if there is one."""
    if any((tile.color, tile.shape) == (color, shape) for _, tile in scene.tiles):
        return None
    return f"there is no {color} {shape} ."


def comparison_sentence(scene: Scene, first: tuple[str, str], second: tuple[str, str]) -> str:
    """Which of two groups, each (attribute, value), has more tiles."""
    a, b = (sum(getattr(tile, attribute) == value for _, tile in scene.tiles) for attribute, value in (first, second))
    relation = "more than" if a > b else "not more than"
    return f"there are {a} {tiles_in_words(*first)} , {relation} {b} {tiles_in_words(*second)} ."
