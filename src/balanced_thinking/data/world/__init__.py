"""The embedded world: visual questions with exact answers and true traces, made from a seed, without a download.

    for example in load(split="train", n=1000, ratio=40): ...

`ratio` is the number of think tokens per answer token, with tags and the end of the turn: 10, 40 or 150 in our studies.
`conclusion`, `false_steps` and `wording` make reasoning like that of real data (`trace_options`).

Splits never share a scene. `train`, `validation`, `test` and `test_paraphrase` (unseen wordings) divide the scenes by a
hash of their content. `test_compositional` has pairs of color and shape that the other splits never show, in about
three tiles of four. `test_longer` has more objects than the others.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple, Unpack

from balanced_thinking.data.example import Example
from balanced_thinking.data.options import check_known_name
from balanced_thinking.data.world import skills, traces
from balanced_thinking.data.world.questions import FAMILIES, QuestionDraft
from balanced_thinking.data.world.sampler import SceneSampler
from balanced_thinking.data.world.scene import COLORS, HELD_OUT_PAIRS, SHAPES, Scene
from balanced_thinking.data.world.trace_options import TraceOptions, TraceSettings
from balanced_thinking.data.world.wordings import PARAPHRASES, WORDINGS

GENERATED = True  # the rows follow from the options alone
PAIRS = tuple(product(COLORS, SHAPES))
SEEN_PAIRS = tuple(pair for pair in PAIRS if pair not in HELD_OUT_PAIRS)
# For `test_compositional`. Each color and each shape has five pairs, of which one is held out. Listed twelve times, it
# is drawn in 12 of 16 cases, also where a color or a shape is given.
NOVEL_PAIRS = (*SEEN_PAIRS, *sorted(HELD_OUT_PAIRS) * 12)
# Tokens besides the text: `<think>` and `</think>`; `<answer>`, `</answer>` and the end of the turn.
THINK_OVERHEAD, ANSWER_OVERHEAD = 2, 3
# What the embedded base model learns. "base": answer at once, name what is in the picture, and read sentences like
# those of traces. The others add: single steps of a trace, steps that follow from earlier text, and repeating a text.
MIXTURES = {
    "base": {"direct": 0.6, "describe": 0.2, "remark": 0.2},
    "base-skills": {"direct": 0.3, "describe": 0.15, "remark": 0.1, "skill": 0.45},
    "base-account": {"direct": 0.3, "skill": 0.3, "account": 0.4},
    "base-quote": {"direct": 0.1, "skill": 0.1, "quote": 0.8},
    "base-all": {"direct": 0.3, "describe": 0.1, "skill": 0.2, "account": 0.2, "quote": 0.2},
}
STYLES = ("reasoning", "direct", "describe", "remark", "skill", "account", "quote", *MIXTURES)
DIRECT_HINT = "answer at once ."
_REMARK_WORDS = 45


@dataclass(frozen=True)
class SplitRules:
    """What a split may show. `buckets`: the hundredths of the hash space whose scenes belong to it."""

    buckets: range
    objects: tuple[int, int] = (3, 5)
    novel_pairs: bool = False
    wordings: str = "train"


SPLITS = {
    "train": SplitRules(range(30, 100)),
    "validation": SplitRules(range(20, 30)),
    "test": SplitRules(range(10)),
    "test_paraphrase": SplitRules(range(10, 20), wordings="paraphrase"),
    "test_compositional": SplitRules(range(100), novel_pairs=True),
    "test_longer": SplitRules(range(100), objects=(6, 8)),
}


def load(
    path: str | None = None,
    *,
    split: str = "train",
    n: int = 1000,
    seed: int = 0,
    ratio: float = 40,
    style: str = "reasoning",
    families: Sequence[str] | None = None,
    **settings: Unpack[TraceSettings],
) -> Iterator[Example]:
    """Yield `n` examples of a split. The same arguments give the same examples on every machine.

    `style`: `reasoning` (a trace and an answer), `direct` (the answer at once), `describe` and `remark` (text about the
    picture), `skill` (one step of a trace by itself), `account` (every cell, then such steps), `quote` (words to
    repeat), or one of `MIXTURES`, on which the embedded base is trained.
    `settings` are the options of `TraceOptions`, for the traces of `reasoning`; `ratio` holds with all of them. The
    scenes, questions and answers do not depend on them. `path` is ignored, because the world needs no file.
    """
    options = TraceOptions(**settings)
    check_known_name("the embedded world", "split", split, SPLITS)
    check_known_name("the embedded world", "style", style, STYLES)
    names = tuple(families or FAMILIES)
    for family in names:
        check_known_name("the embedded world", "family", family, FAMILIES)
    for index in range(n):
        rng = random.Random(f"{split}/{seed}/{index}")
        kind = _RowKind(names[index % len(names)], split, style, ratio, options)
        yield _draw_example(f"{split}-{seed}-{index:06d}", kind, rng)


class _RowKind(NamedTuple):
    family: str
    split: str
    style: str
    ratio: float
    options: TraceOptions


def _draw_example(identity: str, kind: _RowKind, rng: random.Random) -> Example:
    family, split, style, ratio, options = kind
    draft = draw_question_in_split(family, SPLITS[split], rng)
    wordings = PARAPHRASES if SPLITS[split].wordings == "paraphrase" else WORDINGS
    question = rng.choice(wordings[family]).format(**draft.slots)
    if style in MIXTURES:
        style = rng.choices(tuple(MIXTURES[style]), tuple(MIXTURES[style].values()))[0]
    think, answer, choices = None, draft.answer, draft.choices
    if style == "reasoning":
        budget = ratio * (len(answer.split()) + ANSWER_OVERHEAD) - THINK_OVERHEAD
        steps, edit = options.choose_steps(draft.steps), options.make_editor(draft.scene, identity)
        think = traces.write_trace(draft.scene, question, steps, round(budget), edit)
    elif style == "direct":
        question = f"{question} {DIRECT_HINT}"
    elif style == "describe":
        question, answer, choices = (
            "describe the picture .",
            traces.describe_cells_in_random_order(draft.scene, rng),
            (),
        )
    elif style == "skill":
        (question, answer), choices = skills.ask_skill(draft.scene, rng), ()
    elif style == "account":
        question, answer, choices = (
            "what is there ?",
            traces.write_cells_then_steps(draft.scene, _REMARK_WORDS, rng),
            (),
        )
    elif style == "quote":
        (question, answer), choices = skills.ask_repetition(draft.scene, rng), ()
    else:
        question, answer, choices = "what more is there ?", traces.write_remarks(draft.scene, _REMARK_WORDS, rng), ()
    meta = {"family": family, "scene": draft.scene.key}
    return Example(identity, question, (draft.scene.render_picture(),), think, answer, choices, meta)


def draw_question_in_split(family: str, split: SplitRules, rng: random.Random) -> QuestionDraft:
    """Draw again until the scene belongs to the split, by its hash and its pairs of color and shape."""
    while True:
        draft = FAMILIES[family](SceneSampler(rng, NOVEL_PAIRS if split.novel_pairs else SEEN_PAIRS, split.objects))
        novel = any((tile.color, tile.shape) in HELD_OUT_PAIRS for _, tile in draft.scene.tiles)
        if novel == split.novel_pairs and hash_bucket(draft.scene) in split.buckets:
            return draft


def hash_bucket(scene: Scene) -> int:
    """A number below 100 from a hash of the scene's content, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(scene.key.encode(), digest_size=8).digest(), "big") % 100
