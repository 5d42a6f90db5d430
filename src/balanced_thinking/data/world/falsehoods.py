"""Make a sentence of a trace false by one wrong word: a color, a shape, a size, a number, a place, a letter, a line.

The sentence stays grammatical, and the wrong word never makes it true in another way.
"""

from __future__ import annotations

import random

from balanced_thinking.data.world.phrasing import KnownSentence, recognise_sentence
from balanced_thinking.data.world.scene import COLORS, PLACES, SHAPES, SIZES, Scene
from balanced_thinking.data.world.sentences import GROUPS, tiles_in_words

_LARGEST_SUM = 18
# A wrong word is one of the same class.
_CLASSES = (
    tuple(COLORS),
    SHAPES,
    tuple(tiles_in_words("shape", shape) for shape in SHAPES),
    SIZES,
    PLACES,
    tuple(str(number) for number in range(10)),
    tuple(str(number) for number in range(10, _LARGEST_SUM + 1)),
    tuple("ABCD"),
    ("row", "column"),
)
_CLASS_OF = {word: words for words in _CLASSES for word in words}


def make_false(sentence: str, scene: Scene, rng: random.Random) -> str:
    """The sentence with a wrong word; the question, which is no statement about the scene, is returned unchanged."""
    known = recognise_sentence(sentence)
    if known.kind == "question":
        return sentence
    if known.kind == "absence":  # one word is not always enough to name a tile that is there
        color, shape = rng.choice([(tile.color, tile.shape) for _, tile in scene.tiles if tile.shape])
        return f"there is no {color} {shape} ."
    words = sentence.split()
    positions = [i for i, word in enumerate(words) if word in _CLASS_OF]
    for position in rng.sample(positions, len(positions)):
        others = [word for word in _CLASS_OF[words[position]] if word != words[position]]
        for other in rng.sample(others, len(others)):
            if _is_false(known, words, position, other, scene):
                return " ".join([*words[:position], other, *words[position + 1 :]])
    raise ValueError(f"no word makes {sentence!r} false in the scene {scene.key}")


def _is_false(known: KnownSentence, words: list[str], position: int, other: str, scene: Scene) -> bool:
    """Whether a true sentence becomes false with `other` at this position.

    Colors, shapes, sizes and digits are those of a tile whose place or name the sentence or its question gives, so any
    other is wrong. The rest is checked.
    """
    word = words[position]
    if word in PLACES:
        # Nor any place that the sentence lists already, nor the one whose color the question asks for.
        before, after = (scene.cells[PLACES.index(place)] for place in (word, other))
        return other not in words and before != after and not (after is not None and after.is_hidden)
    if known.kind == "comparison":
        return word.isdigit()  # another group might have the same number of tiles
    if known.kind == "no_group":
        return not word.isdigit() and _has_group(scene, [*words[:position], other, *words[position + 1 :]])
    if known.kind == "verdict":
        first, second = (int(other if i == position else words[i]) for i in (0, len(words) - 2))
        return (first > second) == ("not" in words)
    return True


def _has_group(scene: Scene, words: list[str]) -> bool:
    """Whether there are tiles of the group that `there are no <group> , ...` names."""
    named = " ".join(words[3 : words.index(",")])
    return any(
        getattr(tile, attribute) == value
        for attribute, value in GROUPS
        if tiles_in_words(attribute, value) == named
        for _, tile in scene.tiles
    )
