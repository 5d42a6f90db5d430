"""Published scorers: the scores that lmms-eval gave, and the rules in which each differs from ours."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from pathlib import Path

import pytest

from balanced_thinking.data.example import Example
from balanced_thinking.evaluation.completion_scorer import CompletionScorer
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.scoring.scorers import SCORERS, get_scorer

RECORDED = Path(__file__).parent / "fixtures" / "lmms.json.gz"


def test_scores_are_those_that_lmms_eval_gave() -> None:
    cases = json.loads(gzip.decompress(RECORDED.read_bytes()))
    assert len(cases) >= 5000
    for task, prediction, gold, expected in cases:
        assert get_scorer(task)(prediction, gold) == pytest.approx(expected, abs=1e-9), (task, prediction, gold)
    kinds = Counter((task, expected > 0) for task, _, _, expected in cases)
    assert min(kinds[task, right] for task in ("lmms", "anls", "relaxed") for right in (True, False)) >= 50


def slow_distance(a: str, b: str) -> int:
    """Levenshtein's distance by its definition."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
    return row[-1]


def test_the_edit_distance_of_anls_is_that_of_the_definition() -> None:
    rng = random.Random(0)
    for _ in range(500):
        gold, said = ("".join(rng.choices("abc", k=rng.randrange(1, 12))) for _ in range(2))
        score = 1 - slow_distance(gold, said) / max(len(gold), len(said))
        assert get_scorer("anls")(said, gold) == (pytest.approx(score) if score >= 0.5 else 0.0), (gold, said)


def test_anls_of_ten_thousand_characters_takes_no_minute() -> None:
    gold = "abcdefgh " * 1111
    assert get_scorer("anls")(gold.replace("abc", "bcd"), gold) == pytest.approx(1 - 2 / 9, abs=0.01)
    assert get_scorer("anls")("x" * 10_000_000, gold) == 0.0


@pytest.mark.parametrize(
    ("scorer", "prediction", "expected"),
    [
        ("lmms", "b", 1.0),
        ("lmms", "B. dog", 1.0),
        ("lmms", "(B)", 0.0),  # ours counts it
        ("exact", "(B)", 1.0),
        ("official", "B", 1.0),
        ("official", "C", 0.0),
        ("official", "b", 0.25),  # its script knows capital letters only, and guesses
        ("official", None, 0.25),
        ("anls", None, 0.0),
        ("relaxed", None, 0.0),
        ("lmms", None, 0.0),
    ],
)
def test_each_scorer_by_its_own_rule(scorer: str, prediction: str | None, expected: float) -> None:
    assert get_scorer(scorer)(prediction, "B", ("cat", "dog", "owl", "fox")) == expected


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [("1.0499", 1.0), ("0.9501", 1.0), ("1.0501", 0.0), ("0.9499", 0.0), ("104 %", 1.0), ("106%", 0.0)],
)
def test_a_number_is_relaxed_up_to_five_percent_and_no_further(prediction: str, expected: float) -> None:
    assert get_scorer("relaxed")(prediction, "1") == expected


@pytest.mark.parametrize("name", SCORERS)
def test_the_gold_itself_is_right(name: str) -> None:
    assert get_scorer(name)("B", "B", ("cat", "dog")) == 1.0


@pytest.mark.parametrize(
    ("scorer", "expected"),
    [("exact", 1.0), ("lmms", 1.0), ("lmms-raw", 0.0), ("anls", 1.0)],
)
def test_only_the_raw_scorer_reads_the_complete_output(scorer: str, expected: float) -> None:
    tokenizer = build_tiny("qwen2")[1]
    ids = [*tokenizer("<think>It barks.</think><answer>B</answer>").input_ids, tokenizer.eos_token_id]
    example = Example("1", "?", (), None, "B", ("cat", "dog"))
    prediction = CompletionScorer(tokenizer).score_completion(example, ids, scorer)
    assert (prediction.score, prediction.correct) == (expected, expected == 1.0)


def test_a_partial_score_is_kept_and_is_not_correct() -> None:
    tokenizer = build_tiny("qwen2")[1]
    ids = [*tokenizer("<think>a</think><answer>13</answer>").input_ids, tokenizer.eos_token_id]
    prediction = CompletionScorer(tokenizer).score_completion(Example("1", "?", (), None, "12"), ids, "anls")
    assert (prediction.score, prediction.correct) == (0.5, False)
