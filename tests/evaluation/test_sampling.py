"""Sampled answers: drawn from the model's own probabilities, the same in every batch, and never paired with greedy
ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from balanced_thinking import Benchmark, Example, evaluate
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.data.world import load
from balanced_thinking.evaluation.benchmarks import check_benchmarks
from balanced_thinking.evaluation.engines.drawing import TokenDraws
from balanced_thinking.evaluation.engines.local import LocalEngine
from balanced_thinking.evaluation.sampling import Sampling
from balanced_thinking.models.load import LoadedModel
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.runs.evaluations import Evaluation
from tests.cli.tiny_commands import exit_code
from tests.evaluation.test_run import Parrot, questions

WARM = Sampling(temperature=1.5, seed=3)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    torch.manual_seed(0)
    return LoadedModel(*build_tiny("qwen2_5_vl"))


def answers_of(loaded: LoadedModel, examples: list[Example], sampling: Sampling, batch: int = 64) -> list[list[int]]:
    engine = LocalEngine(loaded.model, loaded.processor, max_new_tokens=8)
    engine.sampling = sampling
    parts = [examples[start : start + batch] for start in range(0, len(examples), batch)]
    return [ids for part in parts for ids in engine.complete(part)]


def test_an_answer_is_the_same_in_every_batch_and_other_with_another_seed(loaded: LoadedModel) -> None:
    examples = list(load(split="test", n=6))
    together = answers_of(loaded, examples, WARM)
    assert answers_of(loaded, examples, WARM, batch=1) == together
    assert answers_of(loaded, examples[::-1], WARM, batch=4) == together[::-1]
    assert len({tuple(ids) for ids in together}) == len(together)
    assert answers_of(loaded, examples, replace(WARM, seed=4)) != together
    assert answers_of(loaded, examples, Sampling()) != together


def test_the_caller_s_random_numbers_are_left_alone(loaded: LoadedModel) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    answers_of(loaded, questions(2), WARM)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(temperature=0.7), [0, 1, 2, 3]),
        (Sampling(temperature=2.0), [0, 1, 2, 3]),
        (Sampling(temperature=1.0, top_k=2), [0, 1]),
        (Sampling(temperature=1.0, top_p=0.8), [0, 1]),
        (Sampling(temperature=0.5, top_k=3, top_p=0.99), [0, 1, 2]),
    ],
    ids=str,
)
def test_tokens_are_drawn_from_the_softmax_of_what_is_left(sampling: Sampling, kept: list[int]) -> None:
    """Against the probabilities themselves: every count is within five standard deviations."""
    logits_V = torch.tensor([2.0, 1.2, 0.1, -0.7, float("-inf")])
    expected_V = torch.zeros(5)
    expected_V[kept] = (logits_V[kept] / sampling.temperature).softmax(0)
    draws = 4000
    rows = list(range(draws))
    process = TokenDraws(sampling, [str(row) for row in rows]).processors(rows)
    drawn = process(torch.zeros(draws, 1, dtype=torch.long), logits_V.expand(draws, 5).clone()).argmax(1)
    counts_V = torch.bincount(drawn, minlength=5).float()
    tolerance_V = 5 * (draws * expected_V * (1 - expected_V)).sqrt()
    assert torch.all((counts_V - draws * expected_V).abs() <= tolerance_V)


def test_no_number_that_is_drawn_makes_an_improbable_token_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apple's GPUs may draw 0 as an exponential number, which is infinite noise."""

    def exponential(self: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return self.copy_(torch.tensor([0.0, 1.0, 1.0]))

    monkeypatch.setattr(torch.Tensor, "exponential_", exponential)
    process = TokenDraws(Sampling(temperature=1.0), ["a"]).processors([0])
    assert int(process(torch.zeros(1, 1, dtype=torch.long), torch.tensor([[-10.0, 0.0, 10.0]])).argmax()) == 2


def test_each_token_of_a_row_is_drawn_anew() -> None:
    process = TokenDraws(Sampling(temperature=1.0), ["a"]).processors([0])
    ids, logits = torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 1000)
    assert len({int(process(ids, logits.clone()).argmax()) for _ in range(20)}) > 15


def test_an_evaluation_samples_continues_and_says_so(loaded: LoadedModel, tmp_path: Path) -> None:
    warm = Benchmark(list(load(split="test", n=5)), max_new_tokens=8, temperature=1.5, top_p=0.9, batch_size=2)
    found = evaluate(loaded, warm, out=tmp_path / "a")
    again = evaluate(loaded, replace(warm, batch_size=5), out=tmp_path / "b")
    greedy = evaluate(loaded, replace(warm, temperature=0.0, top_p=1.0), out=tmp_path / "c")
    other = evaluate(loaded, replace(warm, sampling_seed=1), out=tmp_path / "d")
    texts = [[one.completion for one in summary.predictions] for summary in (found, again, greedy, other)]
    assert texts[0] == texts[1]
    assert texts[0] not in texts[2:]
    assert [one.sampling for one in (found, greedy)] == ["temperature 1.5, top_p 0.9, seed 0", "greedy"]
    assert len({one.task for one in (found, greedy, other)}) == 3


def test_sampled_answers_are_not_paired_with_greedy_ones(loaded: LoadedModel, tmp_path: Path) -> None:
    """Also not with those of a version that knew greedy ones alone."""
    found = evaluate(loaded, Benchmark(questions(), max_new_tokens=2, temperature=0.5), out=tmp_path)
    warm = Evaluation("world-test", tmp_path, found)
    other_seed = Evaluation("world-test", tmp_path, replace(found, sampling="temperature 0.5, seed 1"))
    older = Evaluation("world-test", tmp_path, replace(found, sampling="greedy"))
    assert warm.agrees_on_protocol(warm)
    assert not warm.agrees_on_protocol(older)
    assert not warm.agrees_on_protocol(other_seed)
    assert "temperature 0.5, seed 0" in warm.asked
    assert "greedy" not in older.asked


def test_an_engine_that_does_not_say_that_it_samples_is_not_asked_to() -> None:
    with pytest.raises(ValueError, match="set `can_sample = True`"):
        evaluate("world-base", Benchmark(questions(), temperature=0.5), engine=Parrot())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": 1e-40}, "expected 0 .greedy., or 0.01 to 100"),  # logits divided by it are infinite
        ({"temperature": 1.0, "top_p": 0.0}, "top_p is 0.0"),
        ({"temperature": 1.0, "top_p": 1.1}, "top_p is 1.1"),
        ({"temperature": 1.0, "top_k": -1}, "top_k is -1"),
        ({"temperature": 1.0, "sampling_seed": -1}, "sampling_seed is -1"),
        ({"top_p": 0.9, "top_k": 5}, "do not use top_p and top_k"),
        ({"sampling_seed": 1}, "do not use sampling_seed"),
    ],
)
def test_values_that_cannot_be_are_refused_by_name(values: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        check_benchmarks([Benchmark("world", **values)], "here")


def test_the_command_refuses_them_before_it_loads_anything(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["eval", "--model", "world-base", "--data", "world", "--top-p", "0.9"]) == 2
    assert "greedy answers (temperature 0) do not use top_p" in capsys.readouterr().err
