"""Reasoning in the style of distilled models: it restates the question, goes through the cells, checks and sums up.

Every sentence about the board is one of the world's, said in English. So it can be made false, and it can be checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, permutations, product
from random import Random
from typing import Any, NamedTuple, TypeVar

from balanced_thinking.data.world.falsehoods import make_false
from balanced_thinking.data.world.scene import COLORS, SHAPES, Scene
from balanced_thinking.data.world.sentences import (
    GROUPS,
    absence_sentence,
    cell_sentence,
    comparison_sentence,
    counting_sentence,
    relation_sentence,
)
from balanced_thinking.data.world.trace_options import TraceOptions
from balanced_thinking.data.world.traces import count_words
from balanced_thinking.data.world_text.descriptions import SWAP_WAYS, Swap, name_swap, swap_cells
from balanced_thinking.data.world_text.english import say_in_english

OPENINGS = (
    "Okay, I need to find out {goal}.",
    "Let me think about this. The question is {goal}.",
    "Alright, what I want to know is {goal}.",
)
READINGS = ("First I go through the board.", "Let me list what is where.", "I start with what is on the board.")
TENTATIVE = ("So it should be {answer}.", "That would give {answer}.", "So I would say {answer}.")
REMINDERS = ("Back to the question, which is {goal}.", "Now again {goal}.", "To sum up {goal}:")
CONCLUSIONS = ("So the answer is {answer}.", "Therefore, the answer is {answer}.", "The final answer is {answer}.")
AGREEMENTS = ("Okay, that fits.", "Good, this is consistent.", "Right, nothing changes.", "Yes, that looks right.")
CHECKS = {
    "again": ("Wait, let me start again from the beginning.", "Hmm, let me go back to the start and do it once more."),
    "cells": ("Wait, let me check every cell of the board as it is now.", "Let me look at the cells once more."),
    "counts": ("Let me also count the groups.", "Hmm, let me count to be sure.", "Let me verify this by counting."),
    "relations": ("Let me check how the tiles lie.", "Wait, is each tile where I think it is?"),
    "absences": ("Let me check what is missing.", "Hmm, could I have overlooked a tile?"),
    "comparisons": ("Let me compare some groups.", "Let me double-check with the numbers."),
}
_Item = TypeVar("_Item")
_VISIT = 6  # sentences of one kind before another check
_LEAST_CHECK = 25  # words


class Puzzle(NamedTuple):
    """What is reasoned about. `scene` is the final one; `swaps` in the order in which they lead there from `start`."""

    start: Scene
    swaps: tuple[Swap, ...]
    scene: Scene
    goal: str
    steps: tuple[str, ...]
    answer: str


class Narrator:
    """Says the world's sentences in English, some of them falsely, as the options want it."""

    def __init__(self, options: TraceOptions, identity: str) -> None:
        self._options = options
        self._truth, self._words = Random(f"{identity}/false_steps"), Random(f"{identity}/wording")

    def choose(self, ways: Sequence[str]) -> str:
        """One of the ways to say it, the first if the wording is fixed."""
        return self._words.choice(ways) if self._options.wording == "varied" else ways[0]

    def order(self, items: Sequence[_Item]) -> list[_Item]:
        """The items in random order, unless the wording is fixed."""
        return self._words.sample(items, len(items)) if self._options.wording == "varied" else list(items)

    def say(self, sentence: str, scene: Scene) -> str:
        """A sentence that is true of the scene, or one with a wrong word."""
        if self._options.false_steps and self._truth.random() < self._options.false_steps:
            sentence = make_false(sentence, scene, self._truth)
        return say_in_english(sentence, self.choose)


def write_reasoning(puzzle: Puzzle, words: int, options: TraceOptions, identity: str) -> str:
    """About `words` words that lead to the answer, or as few as they need.

    A longer one gives a first answer, checks the board from several sides, and repeats its steps at the end.
    """
    narrator, stated = Narrator(options, identity), options.conclusion == "stated"

    def tell_steps(ways: Sequence[str]) -> list[str]:
        end = [narrator.choose(ways).format(answer=puzzle.answer)] if stated else []
        return [*(narrator.say(step, puzzle.scene) for step in options.choose_steps(puzzle.steps)), *end]

    opening = [narrator.choose(OPENINGS).format(goal=puzzle.goal), narrator.choose(READINGS)]
    reading = _read_board(puzzle, narrator)
    last = tell_steps(CONCLUSIONS)
    if (length := count_words([*opening, *reading, *last])) + _LEAST_CHECK > words:
        return " ".join([*(opening if length <= words else ()), *reading, *last])
    first = [*opening, *reading, *tell_steps(TENTATIVE)]
    last = [narrator.choose(REMINDERS).format(goal=puzzle.goal), *last]
    return " ".join([*first, *_check_board(puzzle, narrator, words - count_words([*first, *last])), *last])


def _read_board(puzzle: Puzzle, narrator: Narrator) -> list[str]:
    """The tiles at the start, then the two cells of each swap."""
    told = [narrator.say(cell_sentence(puzzle.start, cell), puzzle.start) for cell, _ in puzzle.start.tiles]
    scene = puzzle.start
    for swap in puzzle.swaps:
        scene = swap_cells(scene, swap)
        told.append(name_swap(narrator.choose(SWAP_WAYS), swap))
        told += [narrator.say(cell_sentence(scene, cell), scene) for cell in swap]
    return told


def _check_board(puzzle: Puzzle, narrator: Narrator, words: int) -> list[str]:
    """Visits to the kinds of `CHECKS` in turn, until the words are used up."""
    facts = _list_facts(puzzle.scene, narrator)
    told: list[str] = []
    total = 0
    for kind in _visit_kinds(facts, narrator, again=bool(puzzle.swaps)):
        visit = _read_board(puzzle, narrator) if kind == "again" else None
        visit = visit or [narrator.say(fact, puzzle.scene) for fact in islice(facts[kind], _VISIT)]
        if not visit:
            continue
        visit = [narrator.choose(CHECKS[kind]), *visit, narrator.choose(AGREEMENTS)]
        for place, sentence in enumerate(visit):
            total += (length := len(sentence.split()))
            # An introduction is not left alone at the end.
            if total - length / 2 > words or (place == 0 and total + len(visit[1].split()) / 2 > words):
                return told
            told.append(sentence)
    return told


def _visit_kinds(facts: dict[str, Iterator[str]], narrator: Narrator, *, again: bool) -> Iterator[str]:
    """The kinds of checks in rounds, as often as the longest list of facts needs; the start again only once."""
    yield from narrator.order([*(["again"] if again else []), *facts])
    for _ in range(len(GROUPS) ** 2 // _VISIT + 1):
        yield from narrator.order(list(facts))


def _list_facts(scene: Scene, narrator: Narrator) -> dict[str, Iterator[str]]:
    """The world's true sentences about a scene by kind, each made when it is needed."""

    def tell(write: Callable[..., str | None], subjects: Iterable[tuple[Any, ...]]) -> Iterator[str]:
        return filter(None, (write(scene, *subject) for subject in narrator.order(list(subjects))))

    return {
        "cells": tell(cell_sentence, ((cell,) for cell in range(len(scene.cells)))),
        "counts": tell(counting_sentence, GROUPS),
        "relations": tell(relation_sentence, permutations(scene.tiles, 2)),
        "absences": tell(absence_sentence, product(COLORS, SHAPES)),
        "comparisons": tell(comparison_sentence, permutations(GROUPS, 2)),
    }
