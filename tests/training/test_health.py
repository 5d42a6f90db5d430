"""The health of GRPO: what cannot be learned from is named while it lasts, and a run that learned nothing fails."""

from __future__ import annotations

import logging
import math
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from balanced_thinking.runs.advice import TRAINING_WARNINGS
from balanced_thinking.runs.records import MetricsRow, read_metrics_row
from balanced_thinking.training.health import (
    Generation,
    NothingLearnedError,
    active_warnings,
    conclude_health,
    count_generation,
)

NAN = math.nan


def generation(accuracy: list[float], form: list[float] | None = None, **about: Any) -> Generation:
    """Groups of two completions."""
    rewards = {"accuracy": accuracy} | ({} if form is None else {"format": form})
    defaults = {"used": [True] * len(accuracy), "clipped": 0.0, "empty": 0.0, "problems": Counter()}
    return Generation(rewards, {"accuracy": 1.0, "format": 0.2}, 2, **(defaults | about))


def new_state(max_steps: int = 10) -> Any:
    return SimpleNamespace(stateful_callbacks={}, is_world_process_zero=True, global_step=0, max_steps=max_steps)


HEALTHY = generation([1, 0, 0, 0], [1, 1, 1, 0])
CASES = [
    (HEALTHY, []),
    (generation([0, 0, 0, 0], [1, 0, 1, 1]), []),  # the format alone is something to learn
    (generation([0, 0, 0, 0], [0, 0, 0, 0]), ["no_format", "no_advantage"]),
    (generation([1, 0, 0, 1], [0, 0, 0, 0]), ["no_format"]),  # accuracy varies, the format never comes
    (generation([1, 1, 0, 0], [1, 1, 1, 1]), ["no_advantage"]),  # prompts differ, the completions of each do not
    (generation([1, 1, 1, 1]), ["no_advantage"]),  # all right, and no format reward
    (generation([0.1 + 0.2, 0.3]), ["no_advantage"]),  # equal except for rounding
    (generation([1, 0], clipped=1.0), ["all_clipped"]),
    (generation([1, 0], clipped=0.99), ["most_clipped"]),  # one ended
    (generation([1, 0], clipped=0.49), []),
    (generation([0, 0], empty=1.0), ["all_empty", "no_advantage"]),
    (generation([1, 0], used=[False, False]), ["no_advantage"]),  # truncated completions are masked from the loss
    (generation([1, 0, 1, 1], used=[False, False, True, True]), ["no_advantage"]),  # those that differ are
    (generation([1, NAN]), ["no_advantage"]),  # one that no reward could score
    (generation([NAN, NAN]), ["no_advantage"]),
]


@pytest.mark.parametrize(("one", "expected"), CASES)
def test_problems_of_one_generation(one: Generation, expected: list[str]) -> None:
    assert one.find_problems() == expected


@pytest.mark.parametrize(
    ("one", "name", "cure"),
    [
        (generation([1, 0], clipped=1.0), "all_clipped", "raise it"),
        (generation([1, 0], clipped=0.5), "most_clipped", "raise it"),
        (generation([1, 0], empty=1.0), "all_empty", "what the chat template opens"),
        (generation([1, 0], [0, 0]), "no_format", "reasoning_format"),
        (generation([1, 1]), "no_advantage", "temperature"),
    ],
)
def test_each_problem_is_warned_of_once_after_three_generations(
    one: Generation, name: str, cure: str, caplog: pytest.LogCaptureFixture
) -> None:
    state = new_state()
    with caplog.at_level(logging.WARNING):
        for count in range(1, 7):
            count_generation(state, one)
            assert active_warnings(state) == ((name,) if count >= 3 else ())
            assert len(caplog.records) == (count >= 3)
    assert caplog.records[0].levelno == logging.WARNING
    assert cure in caplog.text
    count_generation(state, HEALTHY)
    assert active_warnings(state) == ()


def test_a_healthy_generation_between_ends_the_streak(caplog: pytest.LogCaptureFixture) -> None:
    state = new_state()
    for one in (CASES[2][0], CASES[2][0], HEALTHY, CASES[2][0], CASES[2][0]):
        count_generation(state, one)
    assert active_warnings(state) == ()
    assert caplog.text == ""
    conclude_health(state, "run/model")  # something was learned


def test_what_the_parser_found_is_in_the_warning(caplog: pytest.LogCaptureFixture) -> None:
    state = new_state()
    for _ in range(3):
        count_generation(state, generation([1, 0], [0, 0], problems=Counter({"no_answer": 5, "text_before": 1})))
    assert "The parser found: no_answer (5), text_before (1)" in caplog.text


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_run_in_which_no_reward_ever_differed_is_an_error_with_the_first_cause(steps: int) -> None:
    state = new_state(steps)
    for step in range(1, steps + 1):
        count_generation(state, generation([0, 0], [0, 0], clipped=1.0))
        state.global_step = step
    assert active_warnings(state) == ("all_clipped", "no_format", "no_advantage", "nothing_learned")
    with pytest.raises(NothingLearnedError, match=rf"none of the {2 * steps} completions.*max_completion_length"):
        conclude_health(state, "run/model")


def test_a_resumed_run_counts_on_and_may_learn_after_all(caplog: pytest.LogCaptureFixture) -> None:
    state = new_state(4)
    count_generation(state, generation([0, 0]))
    resumed = new_state(4)
    resumed.stateful_callbacks |= state.stateful_callbacks  # as a checkpoint holds it
    count_generation(resumed, HEALTHY)
    conclude_health(resumed, "run/model")
    assert resumed.stateful_callbacks["generation_health"]["generations"] == 2


def test_a_run_too_short_for_a_warning_gets_it_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    state = new_state(2)
    for _ in range(2):
        count_generation(state, generation([1, 0], clipped=1.0))
    assert caplog.text == ""
    conclude_health(state, "run/model")
    assert "in all 2 generations every completion was cut off" in caplog.text


def test_a_row_of_metrics_holds_its_warnings_and_reads_them_back() -> None:
    row = MetricsRow(3, {"reward": 0.0}, ("no_format", "no_advantage"))
    assert row.to_json() == '{"step": 3, "reward": 0.0, "warnings": ["no_format", "no_advantage"]}'
    assert read_metrics_row({"step": 3, "reward": 0.0, "warnings": ["no_format", "no_advantage"]}, "") == row
    assert "warnings" not in MetricsRow(3, {}).to_json()
    assert read_metrics_row({"step": 3, "warnings": "?"}, "").warnings == ()


def test_every_warning_has_its_words() -> None:
    found = {name for one, _ in CASES for name in one.find_problems()}
    assert found | {"nothing_learned"} == TRAINING_WARNINGS.keys()
