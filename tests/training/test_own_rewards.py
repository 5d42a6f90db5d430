"""Rewards and scorers of the user's own: what they are given, what is refused, and that a change stops a resume."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from balanced_thinking.config import own_functions
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.data.example import Example
from balanced_thinking.data.rows import to_prompts_dataset
from balanced_thinking.evaluation.benchmarks import Benchmark
from balanced_thinking.evaluation.completion_scorer import CompletionScorer
from balanced_thinking.evaluation.task import Task
from balanced_thinking.models.tokenizer import make_tokenizer
from balanced_thinking.scoring.scorers import ScorerError, get_scorer
from balanced_thinking.segments import get_format
from balanced_thinking.training.grpo_config import ScaleGRPOConfig
from balanced_thinking.training.own_rewards import RewardError, load_own_reward, try_own_rewards
from balanced_thinking.training.recorded_functions import list_own_functions
from balanced_thinking.training.rewards import check_rewards, make_rewards
from tests.cli.tiny_commands import LEARNING, STEPS, TINY, exit_code

REWARDS = """
import math
import numpy
import torch

def answers(parsed, answer, **columns):
    return [float(one.answer == right) for one, right in zip(parsed, answer, strict=True)]
def named(id, completions):
    assert [message["content"] for (message,) in completions]
    return [None if one == "b" else 0.5 for one in id]
def tensor(parsed): return torch.ones(len(parsed))
def numbers(parsed): return [numpy.bool_(True), torch.tensor(0.5)]
def ramp(parsed, trainer_state):
    share = trainer_state.global_step / trainer_state.max_steps
    return [share + trainer_state.epoch / trainer_state.num_train_epochs for _ in parsed]
def single(parsed): return 1.0
def few(parsed): return [1.0]
def text(parsed): return [1.0, "good"]
def nan(parsed): return [1.0, math.nan]
def raises(parsed, answer): return [{}[one] for one in answer]
def late(parsed, trainer_state): return [math.nan if trainer_state.global_step else 0.0 for _ in parsed]
def letters(parsed): return [float(len(one.text)) for one in parsed]
async def later(parsed): return [1.0]
def unknown(meta): return [1.0]
def tagged(completions): return [float("<think>" in message["content"]) for (message,) in completions]
"""
SCORERS = """
def loose(prediction, gold, choices): return float(gold in prediction)
def wild(prediction, gold, choices): return 7
def nan(prediction, gold, choices): return float("nan")
def raises(prediction, gold, choices): return 1 / 0
def two(prediction, gold): return 1.0
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    Path("own_rewards.py").write_text(REWARDS)
    Path("own_scorers.py").write_text(SCORERS)
    return tmp_path


def call(name: str) -> list[float | None]:
    tokenizer = make_tokenizer(eos_token="<eos>")
    (reward,) = make_rewards([f"own_rewards:{name}"], tokenizer)
    texts = [f"<think>two reds</think><answer>{answer}</answer>" for answer in "47"]
    columns = {"id": ["a", "b"], "answer": ["4", "4"], "trainer_state": None, "prompts": ["", ""]}
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    return reward(completion_ids=[reward.encode(text) for text in texts], completions=completions, **columns)


def test_completions_keep_tags_that_are_special_tokens() -> None:
    tokenizer = make_tokenizer(["<think>", "</think>"], eos_token="<eos>")
    (reward,) = make_rewards(["own_rewards:tagged"], tokenizer)
    ids = reward.encode("<think>two reds</think><answer>4</answer>")
    as_trl_has_it = tokenizer.decode(ids, skip_special_tokens=True)
    assert "<think>" not in as_trl_has_it
    said = [[{"role": "assistant", "content": as_trl_has_it}]]
    assert reward(completion_ids=[ids], completions=said, prompts=[""]) == [1.0]


@pytest.mark.parametrize(
    ("name", "rewards"),
    [("answers", [1.0, 0.0]), ("named", [0.5, None]), ("tensor", [1.0, 1.0]), ("numbers", [1.0, 0.5])],
)
def test_a_reward_gets_the_parsed_completions_and_the_columns_that_it_names(name: str, rewards: list[Any]) -> None:
    assert call(name) == rewards


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("single", "'own_rewards:single' returned float; expected a list of 2 numbers"),
        ("few", "'own_rewards:few' returned 1 values; expected a list of 2 numbers"),
        ("text", "gave 'good' for row b; expected a finite number, or None"),
        ("nan", "gave nan for row b"),
        ("raises", "failed in line 20 of own_rewards.py for rows a, b: KeyError: '4'"),
    ],
)
def test_a_wrong_return_names_reward_and_row(name: str, said: str) -> None:
    with pytest.raises(RewardError, match=said):
        call(name)


@pytest.mark.parametrize(
    ("name", "said"), [("later", "is asynchronous"), ("unknown", "takes 'meta', which is never given; .*parsed, id")]
)
def test_a_reward_that_cannot_be_called_is_refused_by_name(name: str, said: str) -> None:
    check_rewards({"accuracy": 1.0, "own_rewards:answers": 0.3})
    with pytest.raises(RecipeError, match=said):
        load_own_reward(f"own_rewards:{name}")


def test_rewards_are_tried_on_right_answers_before_a_model_is_loaded(tmp_path: Path) -> None:
    rows = to_prompts_dataset([Example(str(i), "How many?", (), None, "4") for i in range(3)])
    tokenizer = make_tokenizer(eos_token="<eos>")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    names = ("own_rewards:answers", "own_rewards:late", "own_rewards:ramp")
    good = ScaleGRPOConfig(str(tmp_path), rewards=dict.fromkeys(names, 1.0), bf16=False)
    try_own_rewards(good, rows, tokenizer)
    bad = ScaleGRPOConfig(str(tmp_path), rewards={"accuracy": 1.0, "own_rewards:few": 1.0}, bf16=False)
    wild = ScaleGRPOConfig(str(tmp_path), reward_scorer="own_scorers:wild", bf16=False)
    with pytest.raises(RecipeError, match=r"row 0: the scorer 'own_scorers:wild' gave 7 for '4'.*on the right answer"):
        try_own_rewards(wild, rows, tokenizer)
    (accuracy,) = make_rewards(["accuracy"], tokenizer, scorer="own_scorers:wild")
    ids = [accuracy.encode("<think>x</think><answer>4</answer>")]
    with pytest.raises(ScorerError, match="row r7: the scorer 'own_scorers:wild' gave 7"):
        accuracy(completion_ids=ids, prompts=[""], answer=["4"], id=["r7"])
    with pytest.raises(RecipeError, match=r"own_rewards:few.* returned 1 values.*on the right answers"):
        try_own_rewards(bad, rows, tokenizer)


def test_an_own_scorer_scores_and_whatever_else_it_gives_names_the_item() -> None:
    tokenizer = make_tokenizer(eos_token="<eos>")
    ids = tokenizer("<think>x</think><answer>14</answer><eos>", add_special_tokens=False)["input_ids"]
    nothing = tokenizer("<think>x</think><eos>", add_special_tokens=False)["input_ids"]
    scorer, example = CompletionScorer(tokenizer), Example("q7", "", (), None, "4")
    assert scorer.score_completion(example, ids, "own_scorers:loose").score == 1.0
    assert scorer.score_completion(example, nothing, "own_scorers:raises").score == 0.0  # is not called
    for name, said in {"wild": "gave 7 for '14'", "nan": "gave nan", "raises": "failed on '14': ZeroDivision"}.items():
        with pytest.raises(ScorerError, match=f"item q7: the scorer 'own_scorers:{name}' {said}"):
            scorer.score_completion(example, ids, f"own_scorers:{name}")
    with pytest.raises(RecipeError, match=r"own_scorers.py takes \(prediction, gold\); expected"):
        get_scorer("own_scorers:two")


def test_an_edited_scorer_makes_another_evaluation() -> None:
    def identity(scorer: str) -> str:
        return Task(Benchmark("world", scorer=scorer), "test", [], get_format("direct"), "model").identity

    before, named = identity("own_scorers:loose"), identity("exact")
    Path("own_scorers.py").write_text(SCORERS + "# edited")
    assert identity("own_scorers:loose") != before
    assert identity("exact") == named


def test_every_key_that_names_a_scorer_is_recorded_and_found_beside_the_recipe() -> None:
    for key in ("reward_scorer", "validation_scorer"):
        (found,) = list_own_functions({key: "own_scorers:loose"})
        assert found.name == "own_scorers:loose"
        assert list(own_functions._own_names({"training": {key: "own_scorers:loose"}})) == ["own_scorers:loose"]


def test_a_run_records_its_rewards_and_does_not_continue_with_changed_ones(capsys: pytest.CaptureFixture[str]) -> None:
    Path("recipes").mkdir()
    Path("own_rewards.py").rename("recipes/own_rewards.py")
    rewards = "training: {rewards: {accuracy: 1.0, 'own_rewards:letters': 0.3}, reward_scorer: 'own_scorers:loose'}"
    Path("recipes/r.yaml").write_text(f"stage: grpo\n{rewards}\n")
    short = [*TINY, *STEPS, *LEARNING, "--save_steps", "1", "--max_steps", "1"]
    assert exit_code(["grpo", "--config", "recipes/r.yaml", "--out", "run", *short]) == 0
    recorded = json.loads(Path("run/provenance.json").read_text())["own_functions"]
    assert {name: one["file"] for name, one in recorded.items()} == {
        "own_rewards:letters": str(Path("recipes/own_rewards.py").absolute()),
        "own_scorers:loose": str(Path("own_scorers.py").absolute()),
    }
    row = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[0])
    assert row["rewards/own_rewards:letters/mean"] > 0
    Path("recipes/own_rewards.py").write_text(REWARDS + "# edited")
    resume = ["grpo", "--out", "run", "--resume", "--max_steps", "2"]
    assert exit_code(resume) == 2
    assert "own_rewards:letters: the SHA-256 of" in capsys.readouterr().err
    assert exit_code([*resume, "--allow-changed-rewards"]) == 0
    (earlier,) = json.loads(Path("run/provenance.json").read_text())["earlier"]
    assert earlier["own_functions"] == recorded
