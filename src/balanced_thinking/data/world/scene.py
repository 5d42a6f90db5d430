"""Scenes of the embedded world: tiles on a grid, their names in words, and their pictures.

A cell is 28 pixels wide, which is one visual token of Qwen2.5-VL (2 x 2 merged patches of 14 pixels). A dark frame
around the board makes the picture of a cell show its place. With both, a model of a million parameters can learn to
name what it sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from PIL import Image, ImageDraw

CELL_PIXELS = 28
ROWS = COLUMNS = 3

PLACES = ("northwest", "north", "northeast", "west", "center", "east", "southwest", "south", "southeast")
SHAPES = ("circle", "square", "triangle", "diamond", "cross")
COLORS = {
    "red": (214, 39, 40),
    "green": (44, 160, 44),
    "blue": (31, 90, 200),
    "yellow": (235, 200, 20),
    "purple": (148, 70, 189),
}
SIZES = ("small", "large")
HELD_OUT_PAIRS = frozenset(
    {("red", "triangle"), ("green", "cross"), ("blue", "circle"), ("yellow", "square"), ("purple", "diamond")}
)

_BACKGROUND = (246, 246, 242)
_GRID = (205, 205, 200)
_FRAME = (90, 90, 90)
_FRAME_PIXELS = 3
_INK = (60, 60, 60)
_SUPERSAMPLING = 4


@dataclass(frozen=True, slots=True)
class Tile:
    """The content of a cell: a shape with a size, a digit, or (`is_hidden`) the question mark of a pattern."""

    color: str = ""
    shape: str = ""
    size: str = ""
    digit: int | None = None

    @property
    def is_hidden(self) -> bool:
        return not self.color

    @property
    def name(self) -> str:
        """The tile in words: `large red circle`, `red 7` or `question mark`."""
        if self.is_hidden:
            return "question mark"
        return f"{self.color} {self.digit}" if self.digit is not None else f"{self.size} {self.color} {self.shape}"

    @property
    def short_name(self) -> str:
        """The name without the size: `red circle`, `red 7`."""
        return self.name if self.digit is not None or self.is_hidden else f"{self.color} {self.shape}"


HIDDEN = Tile()


@dataclass(frozen=True)
class Scene:
    """A 3 x 3 grid, row by row; None is an empty cell."""

    cells: tuple[Tile | None, ...]

    @cached_property
    def tiles(self) -> tuple[tuple[int, Tile], ...]:
        """The cells that are not empty, as (cell number from 0, tile)."""
        return tuple((i, tile) for i, tile in enumerate(self.cells) if tile is not None)

    @property
    def key(self) -> str:
        """A text that identifies the picture: equal keys have equal pixels."""
        return "|".join("-" if tile is None else tile.name for tile in self.cells)

    def render_picture(self) -> Image.Image:
        """The scene as an RGB picture of 84 x 84 pixels."""
        pixels = np.empty((ROWS * CELL_PIXELS, COLUMNS * CELL_PIXELS, 3), dtype=np.uint8)
        for i, tile in enumerate(self.cells):
            top, left = (i // COLUMNS) * CELL_PIXELS, (i % COLUMNS) * CELL_PIXELS
            pixels[top : top + CELL_PIXELS, left : left + CELL_PIXELS] = _render_cell(tile)
        for edge in (
            np.s_[:_FRAME_PIXELS],
            np.s_[-_FRAME_PIXELS:],
            np.s_[:, :_FRAME_PIXELS],
            np.s_[:, -_FRAME_PIXELS:],
        ):
            pixels[edge] = _FRAME
        return Image.fromarray(pixels)


def place_name(cell: int) -> str:
    """The name of a cell: one word, so that it is one token."""
    return PLACES[cell]


@cache
def _render_cell(tile: Tile | None) -> np.ndarray:
    """The pixels of one cell, drawn larger and scaled down, so that edges are smooth."""
    side = CELL_PIXELS * _SUPERSAMPLING
    image = Image.new("RGB", (side, side), _BACKGROUND)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, side - 1, side - 1), outline=_GRID, width=_SUPERSAMPLING)
    if tile is not None:
        _render_tile(draw, tile, side)
    return np.asarray(image.resize((CELL_PIXELS, CELL_PIXELS), Image.Resampling.BOX))


def _render_tile(draw: ImageDraw.ImageDraw, tile: Tile, side: int) -> None:
    if tile.is_hidden or tile.digit is not None:
        text, ink = ("?", _INK) if tile.is_hidden else (str(tile.digit), COLORS[tile.color])
        # Pillow's own scalable font needs no font file of the system, so every machine draws the same digits.
        draw.text(
            (side / 2, side / 2), text, fill=ink, anchor="mm", font_size=side * 0.8, stroke_width=3, stroke_fill=ink
        )
        return
    radius = side * (0.40 if tile.size == "large" else 0.22)
    low, high, middle = side / 2 - radius, side / 2 + radius, side / 2
    ink = COLORS[tile.color]
    if tile.shape == "circle":
        draw.ellipse((low, low, high, high), fill=ink)
    elif tile.shape == "square":
        draw.rectangle((low, low, high, high), fill=ink)
    elif tile.shape == "triangle":
        draw.polygon([(middle, low), (high, high), (low, high)], fill=ink)
    elif tile.shape == "diamond":
        draw.polygon([(middle, low), (high, middle), (middle, high), (low, middle)], fill=ink)
    else:
        arm = radius / 3
        draw.rectangle((middle - arm, low, middle + arm, high), fill=ink)
        draw.rectangle((low, middle - arm, high, middle + arm), fill=ink)
