"""The embedded world: visual questions with exact answers and truthful traces, made from a seed, with nothing to
download.

    for example in load(split="train", n=1000, ratio=40): ...

`ratio` sets how many think tokens a trace has for each answer token (tags and the end of the turn included), 10, 40
or 150 in our studies. Splits never share a scene: `train`, `validation`, `test` and `test_paraphrase` (unseen
wording) take scenes by a hash of their content; `test_compositional` shows colour-shape pairs (in about three tiles of
four), and `test_longer` numbers of objects, that the others never show.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from balanced_thinking.data.example import Example
from balanced_thinking.data.world import traces
from balanced_thinking.data.world.questions import FAMILIES, PARAPHRASES, WORDINGS, Draft, Maker
from balanced_thinking.data.world.scene import COLORS, HELD_OUT_PAIRS, SHAPES, Scene

PAIRS = tuple(product(COLORS, SHAPES))
SEEN_PAIRS = tuple(pair for pair in PAIRS if pair not in HELD_OUT_PAIRS)
# For `test_compositional`: each color and each shape has one held-out pair among five, so a held-out one that counts
# twelvefold is 12 of 16 draws, with any color or shape asked for as without.
NOVEL_PAIRS = (*SEEN_PAIRS, *sorted(HELD_OUT_PAIRS) * 12)
# Tags and the end of the turn: `<think>` `</think>` around the thoughts, `<answer>` `</answer>` and the stop around
# the answer.
THINK_OVERHEAD, ANSWER_OVERHEAD = 2, 3
# The base's mixtures: it answers at once, names what it sees, and has read the kind of sentences that traces are made
# of; then it also takes, one by one, the steps that traces are made of, goes on from what it has said, and says again
# what it was told.
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
class Split:
    """What a split may show. `buckets` are hundredths of the hash space of scenes that belong to it."""

    buckets: range
    objects: tuple[int, int] = (3, 5)
    novel_pairs: bool = False
    wordings: str = "train"


SPLITS = {
    "train": Split(range(30, 100)),
    "validation": Split(range(20, 30)),
    "test": Split(range(10)),
    "test_paraphrase": Split(range(10, 20), wordings="paraphrase"),
    "test_compositional": Split(range(100), novel_pairs=True),
    "test_longer": Split(range(100), objects=(6, 8)),
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
) -> Iterator[Example]:
    """`n` examples of a split, the same for the same arguments on every machine.

    `style`: `reasoning` (a trace and an answer), `direct` (the answer at once), `describe` and `remark` (text about the
    picture), `skill` (one step of a trace by itself), `account` (every cell, then such steps), `quote` (words to be
    said again), or a mixture of `MIXTURES`, what the embedded base is trained on.
    `path` is ignored: the world lives in no file.
    """
    _check("split", split, SPLITS)
    _check("style", style, STYLES)
    names = tuple(families or FAMILIES)
    for family in names:
        _check("family", family, FAMILIES)
    for index in range(n):
        rng = random.Random(f"{split}/{seed}/{index}")
        yield _example(f"{split}-{seed}-{index:06d}", names[index % len(names)], split, ratio, style, rng)


def _check(kind: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise ValueError(f"the embedded world has no {kind} {name!r}; known: {', '.join(known)}")


def _example(identity: str, family: str, split: str, ratio: float, style: str, rng: random.Random) -> Example:
    draft = draw(family, SPLITS[split], rng)
    wordings = PARAPHRASES if SPLITS[split].wordings == "paraphrase" else WORDINGS
    question = rng.choice(wordings[family]).format(**draft.slots)
    if style in MIXTURES:
        style = rng.choices(tuple(MIXTURES[style]), tuple(MIXTURES[style].values()))[0]
    think, answer, choices = None, draft.answer, draft.choices
    if style == "reasoning":
        budget = ratio * (len(answer.split()) + ANSWER_OVERHEAD) - THINK_OVERHEAD
        think = traces.think(draft.scene, question, draft.steps, round(budget))
    elif style == "direct":
        question = f"{question} {DIRECT_HINT}"
    elif style == "describe":
        question, answer, choices = "describe the picture .", traces.describe(draft.scene, rng), ()
    elif style == "skill":
        (question, answer), choices = traces.skill(draft.scene, rng), ()
    elif style == "account":
        question, answer, choices = "what is there ?", traces.account(draft.scene, _REMARK_WORDS, rng), ()
    elif style == "quote":
        (question, answer), choices = traces.quote(draft.scene, rng), ()
    else:
        question, answer, choices = "what more is there ?", traces.remark(draft.scene, _REMARK_WORDS, rng), ()
    meta = {"family": family, "scene": draft.scene.key}
    return Example(identity, question, (draft.scene.render(),), think, answer, choices, meta)


def draw(family: str, split: Split, rng: random.Random) -> Draft:
    """A draft whose scene belongs to the split: drawn again until its hash, and its pairs, say so."""
    while True:
        draft = FAMILIES[family](Maker(rng, NOVEL_PAIRS if split.novel_pairs else SEEN_PAIRS, split.objects))
        novel = any((tile.color, tile.shape) in HELD_OUT_PAIRS for _, tile in draft.scene.tiles)
        if novel == split.novel_pairs and bucket(draft.scene) in split.buckets:
            return draft


def bucket(scene: Scene) -> int:
    """The scene's place among 100 by a hash of its content, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(scene.key.encode(), digest_size=8).digest(), "big") % 100
