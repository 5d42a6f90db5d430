"""The world as text: a reader of the prompt alone agrees with every answer and every sentence of the reasoning."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import pytest

from balanced_thinking.data.example import Example, choices_are_shown
from balanced_thinking.data.load import load_data
from balanced_thinking.data.world import SPLITS
from balanced_thinking.data.world.questions import FAMILIES
from balanced_thinking.data.world_text import ANSWER_OVERHEAD, THINK_OVERHEAD, TOKENS_PER_WORD
from balanced_thinking.scoring.scorers import get_scorer
from tests.data.world import text_reader

KINDS: list[dict[str, Any]] = [
    {"wording": "varied", "moves": 4},
    {"wording": "fixed", "ratio": 60},
    {"wording": "varied", "conclusion": "unstated", "ratio": 80},
]


def load(**options: Any) -> list[Example]:
    split = options.pop("split", "train")
    return load_data("world-text", split=split, options=options).examples


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("split", SPLITS)
def test_the_reader_agrees_with_every_answer_and_sentence(split: str, options: dict[str, Any]) -> None:
    families = Counter[str]()
    for example in load(split=split, n=24, seed=3, **options):
        assert text_reader.solve(example.question) == example.answer, example
        account = text_reader.judge(example.question, example.think or "")
        assert not account.unknown, account.unknown
        assert [text for text, true in account.statements if not true] == [], example
        assert set(account.answers) == (set() if "conclusion" in options else {example.answer})
        assert choices_are_shown(example)
        families[example.meta["family"]] += 1
    assert families == dict.fromkeys(FAMILIES, 3)


def test_false_steps_are_false_in_the_share_that_is_asked_for() -> None:
    """Compared with the true traces of the same examples, whose statements they have in the same order."""
    options = {"n": 96, "ratio": 5, "wording": "varied"}
    changed = total = 0
    for true, false in zip(load(**options), load(**options, false_steps=0.3), strict=True):
        assert (true.question, true.answer) == (false.question, false.answer)
        expected, found = (text_reader.split_sentences(example.think or "") for example in (true, false))
        for place, (right, wrong) in enumerate(zip(expected, found, strict=True)):
            if text_reader.to_small_grammar(right) is None:
                assert right == wrong
                continue
            total += 1
            if right != wrong:
                changed += 1
                mixed = text_reader.judge(true.question, " ".join([*expected[:place], wrong]))
                assert mixed.statements[-1] == (wrong, False), (wrong, true)
    assert 0.25 < changed / total < 0.35


def test_an_unstated_conclusion_leaves_out_the_last_step_and_the_answer() -> None:
    for stated, unstated in zip(load(n=16, ratio=5), load(n=16, ratio=5, conclusion="unstated"), strict=True):
        assert text_reader.split_sentences(stated.think or "")[:-2] == text_reader.split_sentences(unstated.think or "")


@pytest.mark.parametrize("ratio", [10, 40, 150])
def test_the_ratio_is_kept_without_saying_one_thing_over_and_over(ratio: int) -> None:
    examples = load(n=24, ratio=ratio, wording="varied", moves=0)
    words = sum(len((example.think or "").split()) for example in examples)
    wanted = sum(ratio * (1 + ANSWER_OVERHEAD) - THINK_OVERHEAD for _ in examples) / TOKENS_PER_WORD
    assert words == pytest.approx(wanted, rel=0.2 if ratio == 10 else 0.06)
    for example in examples:
        sentences = text_reader.split_sentences(example.think or "")
        assert max(Counter(sentences).values()) <= 2 + ratio // 10
        assert len(set(sentences)) > 0.75 * len(sentences)


def test_answers_are_balanced_and_scored_as_right() -> None:
    examples = load(n=400, ratio=1)
    answers = Counter(example.answer for example in examples)
    assert answers.most_common(1)[0][1] < 0.12 * len(examples)
    assert 0.3 < answers["yes"] / (answers["yes"] + answers["no"]) < 0.7
    assert all(get_scorer("exact")(e.answer, e.answer, e.choices) == 1.0 for e in examples[:16])


def test_rows_are_the_same_everywhere_and_splits_share_no_board() -> None:
    rows = [(e.id, e.question, e.think, e.answer) for e in load(n=24, wording="varied", false_steps=0.2)]
    assert hashlib.sha256(repr(rows).encode()).hexdigest()[:16] == "ec4501d986e7a58f"
    boards = {split: {e.meta["scene"] for e in load(split=split, n=40, ratio=1)} for split in SPLITS}
    assert not boards["train"] & (boards["validation"] | boards["test"] | boards["test_paraphrase"])
    assert load(n=8, moves=0, families=["count"])[0].meta == load(n=1, moves=0, families=["count"])[0].meta


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"moves": -1}, "moves is -1; expected 0"),
        ({"families": ["counts"]}, "did you mean 'count'"),
        ({"conclusion": "hidden"}, "no conclusion 'hidden'"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(n=1, **options)
