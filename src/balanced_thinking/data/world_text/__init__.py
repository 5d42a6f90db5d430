"""The embedded world written as text, for language models: a board in words, a question, reasoning, and the answer.

    for example in load(split="train", n=1000, ratio=40, moves=2): ...

Scenes, questions and exact answers are the world's (`data.world`). The board is described in one of several styles.
Up to `moves` times two cells trade places before the question is asked: the more of them, the harder it is. Answers are
one word or number.

`ratio` is the number of think tokens per answer token, with tags and the end of the turn. It is estimated from words,
for vocabularies as large as Gemma 3's. No trace is shorter than its steps: about 11 without moves, 15 with two.

Splits are the world's, by the scene that the question is about. `test_paraphrase` also describes boards in other ways.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Unpack

from balanced_thinking.data.bad_rows import UnknownDataError
from balanced_thinking.data.example import Example, format_choices
from balanced_thinking.data.options import check_known_name
from balanced_thinking.data.world import SPLITS, draw_question_in_split
from balanced_thinking.data.world.questions import FAMILIES, QuestionDraft
from balanced_thinking.data.world.scene import Scene
from balanced_thinking.data.world.trace_options import TraceOptions, TraceSettings
from balanced_thinking.data.world_text.descriptions import (
    CELL_OF,
    PARAPHRASE_STYLES,
    SWAP_WAYS,
    TRAIN_STYLES,
    Swap,
    describe_scene,
    name_swap,
    swap_cells,
)
from balanced_thinking.data.world_text.reasoning import Puzzle, write_reasoning
from balanced_thinking.data.world_text.wordings import (
    AFTER_SWAPS,
    ANSWER_HINTS,
    DEFAULT_HINT,
    GOALS,
    PARAPHRASES,
    RELATIONS,
    WORDINGS,
)

GENERATED = True  # the rows follow from the options alone
# Measured with Gemma 3's tokenizer: `<think>` and `</think>`; `<answer>`, `</answer>` and the end of the turn; a word.
THINK_OVERHEAD, ANSWER_OVERHEAD, TOKENS_PER_WORD = 6, 7, 1.2


def load(
    path: str | None = None,
    *,
    split: str = "train",
    n: int = 1000,
    seed: int = 0,
    ratio: float = 40,
    moves: int = 2,
    families: Sequence[str] | None = None,
    **settings: Unpack[TraceSettings],
) -> Iterator[Example]:
    """Yield `n` examples of a split. The same arguments give the same examples on every machine.

    `moves`: the largest number of swaps; each question has 0 to so many. `settings` are the options of `TraceOptions`,
    for the reasoning; boards, questions and answers do not depend on them, nor on `ratio`. `path` is ignored.
    """
    options = TraceOptions(**settings)
    check_known_name("the world as text", "split", split, SPLITS)
    names = tuple(families or FAMILIES)
    for family in names:
        check_known_name("the world as text", "family", family, FAMILIES)
    if moves < 0:
        raise UnknownDataError(f"the option moves is {moves}; expected 0 or more swaps")
    for index in range(n):
        rng, identity = Random(f"text/{split}/{seed}/{index}"), f"{split}-{seed}-{index:06d}"
        family = names[index % len(names)]
        draft = draw_question_in_split(family, SPLITS[split], rng)
        start, swaps = draw_swaps(draft.scene, rng.randint(0, moves), rng)
        slots = _slots_in_english(draft)
        puzzle = Puzzle(start, swaps, draft.scene, GOALS[family].format(**slots), draft.steps, draft.answer)
        budget = ratio * (len(draft.answer.split()) + ANSWER_OVERHEAD) - THINK_OVERHEAD
        yield Example(
            identity,
            _write_prompt(puzzle, family, draft, SPLITS[split].wordings == "paraphrase", rng),
            (),
            write_reasoning(puzzle, round(budget / TOKENS_PER_WORD), options, identity),
            draft.answer,
            draft.choices,
            {"family": family, "scene": draft.scene.key, "moves": len(swaps)},
        )


def draw_swaps(scene: Scene, count: int, rng: Random) -> tuple[Scene, tuple[Swap, ...]]:
    """A scene, and `count` swaps of cells with different contents that lead from it to this one."""
    swaps: list[Swap] = []
    while len(swaps) < count:
        a, b = rng.sample(range(len(scene.cells)), 2)
        if scene.cells[a] != scene.cells[b]:
            scene = swap_cells(scene, (a, b))
            swaps.insert(0, (a, b))
    return scene, tuple(swaps)


def _slots_in_english(draft: QuestionDraft) -> dict[str, str]:
    slots = dict(draft.slots)
    if "place" in slots:
        slots["place"] = CELL_OF[slots["place"]]
    if "relation" in slots:
        slots["relation"] = RELATIONS[slots["relation"]]
    return slots


def _write_prompt(puzzle: Puzzle, family: str, draft: QuestionDraft, paraphrased: bool, rng: Random) -> str:
    board = describe_scene(puzzle.start, rng, PARAPHRASE_STYLES if paraphrased else TRAIN_STYLES)
    told = [name_swap(rng.choice(SWAP_WAYS), swap) for swap in puzzle.swaps]
    wording = rng.choice((PARAPHRASES if paraphrased else WORDINGS)[family])
    asked = wording.format(**_slots_in_english(draft))
    lines = [" ".join([board, *told]), f"{AFTER_SWAPS if told else ''}{asked}"]
    lines += [format_choices(draft.choices)] if draft.choices else []
    return "\n".join([*lines, ANSWER_HINTS.get(family, DEFAULT_HINT)])
