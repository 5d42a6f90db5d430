"""Rewards of the GRPO stage: pure functions of one parsed completion, and their composition for TRL.

    make_rewards(["accuracy", "format"], tokenizer)

To add one, write a function of a `Rollout` and give it a line in `REWARDS`; or leave it in a file of your own and name
it `module:function` (see `own_rewards`). No reward runs a model's text as code. All read the answer with the parser
that training and evaluation use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from balanced_thinking.config.names import did_you_mean
from balanced_thinking.config.own_functions import is_own_name
from balanced_thinking.scoring.completion import Completion, cut_after_answer, is_answer_complete
from balanced_thinking.scoring.scorers import ScorerError, score_against_all
from balanced_thinking.segments import THINK, Parsed, ReasoningFormat, get_format
from balanced_thinking.training.own_rewards import OwnReward, load_own_reward
from balanced_thinking.training.parsed_reward import ParsedReward


@dataclass(frozen=True)
class Rollout:
    """One completion, and what else a reward may look at.

    `think_tokens` counts the generated tokens, tags included. `stopped`: the model ended its turn and was not cut off.
    `alternatives`: other answers that are as right as `answer`. `answered`: the text up to the first well-formed
    answer, which is all that an evaluation sees; None: all of it.
    """

    parsed: Parsed
    think_tokens: int
    answer: str
    choices: tuple[str, ...] = ()
    scorer: str = "numeric"
    think_budget: int = 256
    stopped: bool = False
    alternatives: tuple[str, ...] = ()
    answered: Parsed | None = None


Reward = Callable[[Rollout], float]


def accuracy_reward(rollout: Rollout) -> float:
    """The scorer's verdict on the extracted answer; 0 where it is missing or was cut off, as in evaluation."""
    answered = rollout.answered or rollout.parsed
    if not is_answer_complete(answered, rollout.stopped):
        return 0.0
    answers = (rollout.answer, *rollout.alternatives)
    return score_against_all(rollout.scorer, answered.answer, answers, rollout.choices)


def format_reward(rollout: Rollout) -> float:
    """1 where the parser finds thinking and answer and no problem, else 0."""
    return float(rollout.parsed.well_formed and rollout.parsed.answer is not None)


def conciseness_reward(rollout: Rollout) -> float:
    """1 for a correct answer whose thinking is within the token budget, falling to 0 at twice the budget.

    A wrong answer gets 0 however short it is, so that brevity alone is not rewarded.
    """
    if accuracy_reward(rollout) < 1:
        return 0.0
    return min(1.0, max(0.0, 2 - rollout.think_tokens / rollout.think_budget))


REWARDS: dict[str, Reward] = {"accuracy": accuracy_reward, "format": format_reward, "conciseness": conciseness_reward}


def check_rewards(weights: Mapping[str, float]) -> None:
    """Raises ValueError for an unknown reward, one of the user's own that cannot be loaded or takes other arguments, a
    weight that is not a number, and an empty mapping."""
    if not weights:
        raise ValueError(f"rewards is empty; expected a weight for at least one of: {', '.join(REWARDS)}")
    for name, weight in weights.items():
        if is_own_name(name):
            load_own_reward(name)
        elif name not in REWARDS:
            raise ValueError(
                f"unknown reward {name!r}{did_you_mean(name, REWARDS)}; known: {', '.join(REWARDS)}, or "
                "module:function for your own"
            )
        if not isinstance(weight, (int, float)) or isinstance(weight, bool) or not math.isfinite(weight):
            raise ValueError(f"rewards.{name} is {weight!r}; expected a finite number")
    if not any(weights.values()):
        raise ValueError(f"every weight in rewards is 0 ({', '.join(weights)}), so nothing could be learned")


class NamedReward(ParsedReward):
    """A reward of `REWARDS` as TRL calls it: columns of a batch -> one number per completion."""

    def __init__(self, name: str, processor: Any, format: ReasoningFormat, scorer: str, think_budget: int) -> None:
        super().__init__(name, processor, format)
        self._reward, self._scorer, self._think_budget = REWARDS[name], scorer, think_budget

    def __call__(
        self, *, completion_ids: Sequence[Sequence[int]], prompts: Sequence[Any] | None = None, **columns: Any
    ) -> list[float]:
        if "answer" not in columns:
            raise ValueError(
                f"reward {self.__name__!r} needs a column `answer`; found {sorted(columns)}: "
                "make the data with to_prompts_dataset, or give the rows an answer"
            )
        none = [()] * len(completion_ids)
        answers, choices = columns["answer"], columns.get("choices") or none
        rows = zip(answers, choices, columns.get("alternatives") or none, strict=True)
        found = self.parse_completions(completion_ids, prompts)
        ids = columns.get("id") or ["?"] * len(completion_ids)
        return [self._score_row(*one) for one in zip(ids, found, rows, strict=True)]

    def _score_row(
        self, id: object, completion: Completion, row: tuple[str, Sequence[str] | None, Sequence[str] | None]
    ) -> float:
        parsed, segments, stopped = completion
        answer, choices, alternatives = row
        if not isinstance(answer, str | int | float):
            raise ValueError(f"row {id}: answer is {answer!r}; expected a text or a number")
        rollout = Rollout(
            parsed=parsed,
            think_tokens=segments.count(THINK),
            answer=str(answer),
            choices=tuple(choices or ()),
            scorer=self._scorer,
            think_budget=self._think_budget,
            stopped=stopped,
            alternatives=tuple(alternatives or ()),
            answered=cut_after_answer(parsed, self._format),
        )
        try:
            return self._reward(rollout)
        except ScorerError as error:
            raise ScorerError(f"row {id}: {error}") from error


def make_rewards(
    names: Sequence[str],
    processor: Any,
    format: str | Mapping[str, Any] | ReasoningFormat = "think-answer",
    scorer: str = "numeric",
    think_budget: int = 256,
) -> list[ParsedReward]:
    """The rewards of these names as TRL's `reward_funcs`. `processor` is the model's, or its tokenizer."""
    shape = get_format(format)
    return [
        OwnReward(load_own_reward(name), processor, shape)
        if is_own_name(name)
        else NamedReward(name, processor, shape, scorer, think_budget)
        for name in names
    ]
