"""Draw random tiles and scenes within the limits of a split."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from balanced_thinking.data.world.scene import COLUMNS, ROWS, SIZES, Scene, Tile


@dataclass
class SceneSampler:
    """Draws tiles and scenes.

    pairs: the (color, shape) to draw from; one that is listed twice is drawn twice as often. objects: the least and the
    largest number of objects in a scene.
    """

    rng: random.Random
    pairs: Sequence[tuple[str, str]]
    objects: tuple[int, int]
    _count: int = field(init=False)

    def __post_init__(self) -> None:
        self._count = self.rng.randint(*self.objects)

    @property
    def object_count(self) -> int:
        """The number of objects in this sampler's scene, drawn once."""
        return self._count

    @property
    def exceeds_training_objects(self) -> bool:
        """Whether there are always more objects than in training."""
        return self.objects[0] > COLUMNS + 2

    def draw_tile(self, allowed: Callable[[str, str, str], bool] = lambda color, shape, size: True) -> Tile:
        """A random shape for which `allowed(color, shape, size)` is true."""
        pool = [(c, s, z) for c, s in self.pairs for z in SIZES if allowed(c, s, z)]
        color, shape, size = self.rng.choice(pool)
        return Tile(color, shape, size)

    def scatter_tiles(self, tiles: Sequence[Tile]) -> Scene:
        """Put the tiles into random cells of an empty grid."""
        cells: list[Tile | None] = [None] * (ROWS * COLUMNS)
        for cell, tile in zip(self.rng.sample(range(len(cells)), len(tiles)), tiles, strict=True):
            cells[cell] = tile
        return Scene(tuple(cells))
