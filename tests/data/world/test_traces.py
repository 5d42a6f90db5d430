"""Kinds of traces: with and without a conclusion, with false steps, in varied wording; each alone and together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from balanced_thinking.data.example import Example
from balanced_thinking.data.world import SPLITS, STYLES, load
from balanced_thinking.data.world.phrasing import PHRASES
from balanced_thinking.models.tokenizer import make_tokenizer
from tests.data.world import listener, solver

ROWS, RATIO, SHARE = 120, 40, 0.3


class Kind(NamedTuple):
    """The options of a kind of trace, by name."""

    conclusion: str
    false_steps: float
    wording: str


KINDS = [Kind(*options) for options in product(("stated", "unstated"), (0.0, SHARE), ("fixed", "varied"))]
PLAIN = KINDS[0]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind)))


@pytest.fixture(scope="module")
def rows() -> dict[Kind, list[Example]]:
    return {kind: list(load(n=ROWS, ratio=RATIO, **kind._asdict())) for kind in KINDS}


def image_of(example: Example) -> Image.Image:
    (image,) = example.images
    assert isinstance(image, Image.Image)
    return image


def sentences_of(example: Example) -> list[str]:
    assert example.think is not None
    return listener.plain_sentences(example.think)


def steps_of(example: Example) -> Sequence[str]:
    """What follows the question."""
    sentences = sentences_of(example)
    return sentences[next(i for i, s in enumerate(sentences) if s.startswith("the question : ")) + 1 :]


def digest_of(examples: Iterable[Example]) -> str:
    """Of the texts; equal scenes have equal pictures."""
    found = hashlib.blake2b(digest_size=16)
    for e in examples:
        found.update(json.dumps([e.id, e.question, e.think, e.answer, e.choices, e.meta]).encode())
    return found.hexdigest()


def test_without_options_the_examples_are_those_of_earlier_releases() -> None:
    """Published figures and the embedded models were made with them."""
    named = (example for split, style in product(SPLITS, STYLES) for example in load(split=split, style=style, n=16))
    assert digest_of(named) == "b51f60eabbd744710ed8d62cec2906b8"
    assert digest_of(e for ratio in (10, 150) for e in load(ratio=ratio, n=16)) == "a734aa5aeb6fab312502bb4efa096623"


@every_kind
def test_a_kind_changes_the_trace_alone_and_its_answers_are_right(kind: Kind, rows: dict[Kind, list[Example]]) -> None:
    for example, plain in zip(rows[kind], rows[PLAIN], strict=True):
        assert (example.id, example.question, example.answer) == (plain.id, plain.question, plain.answer)
        assert solver.solve(image_of(example), example.question) == example.answer
        assert (example.think == plain.think) == (kind == PLAIN)


@every_kind
def test_as_many_sentences_are_false_as_asked(kind: Kind, rows: dict[Kind, list[Example]]) -> None:
    """The question, which is repeated correctly, does not count. Four standard errors of a share are allowed."""
    total = false = 0
    for example, plain in zip(rows[kind], rows[PLAIN], strict=True):
        assert not solver.falsehoods(image_of(plain), str(plain.think), plain.question)
        sentences = sentences_of(example)
        total += len(sentences) - 1
        false += len(listener.untrue(image_of(example), sentences, example.question, steps_of(plain)))
    share = kind.false_steps
    assert false / total == pytest.approx(share, abs=4 * (share * (1 - share) / total) ** 0.5)


def test_every_step_can_be_false_the_last_one_too() -> None:
    """At a share of one all sentences are false, of every kind."""
    said, kinds = set[str](), set[str]()
    for example, plain in zip(load(n=64, ratio=150, false_steps=1), load(n=64, ratio=150), strict=True):
        sentences = sentences_of(example)
        false = listener.untrue(image_of(example), sentences, example.question, steps_of(plain))
        assert false == [sentence for sentence in sentences if not sentence.startswith("the question : ")]
        said |= {solver.form_of(sentence) for sentence in false}
        kinds |= {solver.form_of(sentence) for sentence in sentences_of(plain)}
    assert len(said) == len(kinds) - 1 >= 17


@every_kind
def test_the_last_step_is_left_out_where_asked(kind: Kind, rows: dict[Kind, list[Example]]) -> None:
    for example, plain in zip(rows[kind], rows[PLAIN], strict=True):
        stated = [s for s in sentences_of(example) if listener.states_the_answer(s, example.question)]
        assert len(stated) == (kind.conclusion == "stated"), stated
        assert len(steps_of(example)) == len(steps_of(plain)) - (kind.conclusion == "unstated")


@every_kind
def test_the_answer_follows_from_a_true_trace_without_its_last_step(
    kind: Kind, rows: dict[Kind, list[Example]]
) -> None:
    """With false steps it follows less often: then a trace misleads."""
    drawn = 0
    for example in rows[kind]:
        sentences = sentences_of(example)[: None if kind.conclusion == "unstated" else -1]
        drawn += listener.conclude(sentences, example.question) == example.answer
    assert drawn == ROWS if not kind.false_steps else 0.4 * ROWS < drawn < 0.9 * ROWS


@pytest.mark.parametrize("ratio", [10, RATIO, 150])
@every_kind
def test_every_kind_has_the_ratio_that_was_asked_for(kind: Kind, ratio: int) -> None:
    """In words, of which each is one token of the embedded models."""
    examples = list(load(n=40, ratio=ratio, **kind._asdict()))
    ratios = [(len(str(e.think).split()) + 2) / (len(e.answer.split()) + 3) for e in examples]
    assert np.mean(ratios) == pytest.approx(ratio, rel=0.08)


def test_every_way_to_say_a_sentence_occurs_and_needs_no_new_word() -> None:
    plain, varied = (list(load(n=160, ratio=150, wording=wording)) for wording in ("fixed", "varied"))
    words = [{word for example in rows for word in str(example.think).split()} for rows in (plain, varied)]
    tokenizer = make_tokenizer(eos_token="<eos>")
    new = sorted(f" {word}" for word in words[1] - words[0])
    assert [len(ids) for ids in tokenizer(new)["input_ids"]] == [1] * len(new)
    said = {sentence for example in varied for sentence in str(example.think).removesuffix(" .").split(" . ")}
    for way in (way for ways in PHRASES.values() for way in ways):
        assert any(listener.fits(way, sentence) for sentence in said), way


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conclusion": "hidden"}, "conclusion 'hidden'; known: stated, unstated"),
        ({"wording": "vared"}, r"wording 'vared' \(did you mean 'varied'\?\); known: fixed, varied"),
        ({"false_steps": 1.5}, "false_steps is 1.5; expected a share from 0 to 1"),
        ({"false_steps": float("nan")}, "false_steps is nan"),
    ],
)
def test_other_values_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(load(n=1, **options))
