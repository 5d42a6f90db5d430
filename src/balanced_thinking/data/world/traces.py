"""Longer true texts about a scene: traces of a given length, descriptions, and remarks."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations, product

from balanced_thinking.data.world.scene import COLORS, SHAPES, Scene
from balanced_thinking.data.world.sentences import (
    GROUPS,
    absence_sentence,
    cell_sentence,
    comparison_sentence,
    counting_sentence,
    relation_sentence,
)
from balanced_thinking.data.world.skills import random_steps


def describe_cells_in_random_order(scene: Scene, rng: random.Random) -> str:
    """What is in every cell, in random order."""
    return " ".join(cell_sentence(scene, cell) for cell in rng.sample(range(len(scene.cells)), len(scene.cells)))


def write_remarks(scene: Scene, words: int, rng: random.Random) -> str:
    """About `words` words on cells, relations, groups and numbers."""
    return " ".join(_take_sentences(_random_facts(scene, rng), words))


def write_cells_then_steps(scene: Scene, words: int, rng: random.Random) -> str:
    """Every cell in order, then about `words` words of steps that follow from these cells."""
    cells = [cell_sentence(scene, cell) for cell in range(len(scene.cells))]
    return " ".join([*cells, *_take_sentences(random_steps(scene, rng), words)])


def write_trace(scene: Scene, question: str, steps: Sequence[str], words: int, edit: Callable[[str], str] = str) -> str:
    """A trace of about `words` words: facts about the scene, the question if it fits, then the `steps` to the answer.

    The order is always the same, so that the next sentence follows from the picture, the question and the text so far.
    `edit` changes single sentences: their wording or their truth.
    """
    end = [edit(sentence) for sentence in (f"the question : {question.replace(' ?', '')} .", *steps)]
    if count_words(end) > words:
        end = end[1:]
    return " ".join([*_take_sentences(map(edit, _list_facts(scene)), words - count_words(end)), *end])


def count_words(sentences: Sequence[str]) -> int:
    """The number of words in all of them; punctuation stands alone and counts, too."""
    return sum(len(sentence.split()) for sentence in sentences)


def _list_facts(scene: Scene) -> Iterator[str]:
    """All true sentences, one kind after the other: cells, groups, relations, what is missing, comparisons."""
    yield from (cell_sentence(scene, cell) for cell in range(len(scene.cells)))
    yield from (counting_sentence(scene, *group) for group in GROUPS)
    yield from (relation_sentence(scene, a, b) for a, b in permutations(scene.tiles, 2))
    yield from filter(None, (absence_sentence(scene, color, shape) for color, shape in product(COLORS, SHAPES)))
    yield from (comparison_sentence(scene, a, b) for a, b in permutations(GROUPS, 2))


def _random_facts(scene: Scene, rng: random.Random) -> Iterator[str]:
    """True sentences about the scene in random order, without end."""
    while True:
        kind = rng.randrange(5)
        if kind == 0:
            yield cell_sentence(scene, rng.randrange(len(scene.cells)))
        elif kind == 1:
            yield relation_sentence(scene, *rng.sample(scene.tiles, 2))
        elif kind == 2:
            yield counting_sentence(scene, *rng.choice(GROUPS))
        elif kind == 3:
            yield absence_sentence(scene, rng.choice(tuple(COLORS)), rng.choice(SHAPES)) or cell_sentence(scene, 0)
        else:
            yield comparison_sentence(scene, *rng.sample(GROUPS, 2))


def _take_sentences(sentences: Iterator[str], words: int) -> list[str]:
    """The first sentences whose total length is closest to `words` words."""
    chosen: list[str] = []
    total = 0
    for sentence in sentences:
        length = len(sentence.split())
        if total + length / 2 > words:
            break
        chosen.append(sentence)
        total += length
    return chosen
