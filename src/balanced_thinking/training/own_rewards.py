"""Rewards of the user's own, by `module:function`.

    def short(completions, parsed, answer, **columns):        # in my_rewards.py
        return [float(len(one.think or "") < 400) for one in parsed]

A reward is called with TRL's keywords and gives a number per completion, or None where it does not apply. The keywords:

- `prompts`, `completions`, `completion_ids`: lists of B, as TRL has them, but completions keep tags that are special
  tokens;
- `parsed`: B `Parsed`, read with the parser of training and evaluation (`think`, `answer`, `problems`, `text`);
- every column of the rows: `id`, `answer`, `choices`, `alternatives`, `images`;
- `trainer_state`, `log_extra`, `log_metric`, of TRL.

A function without `**columns` gets those that it names.
"""

from __future__ import annotations

import inspect
import math
import traceback
from collections.abc import Mapping, Sequence
from inspect import Parameter
from itertools import islice
from numbers import Real
from typing import Any

from balanced_thinking.config.errors import BalancedThinkingError, RecipeError
from balanced_thinking.config.own_functions import OwnFunction, is_own_name, load_own_function
from balanced_thinking.scoring.scorers import ScorerError, get_scorer
from balanced_thinking.segments import Parsed, ReasoningFormat, get_format, render
from balanced_thinking.system.text import list_some
from balanced_thinking.training.parsed_reward import ParsedReward

COLUMNS = ("id", "answer", "choices", "alternatives", "images")
KEYWORDS = ("prompts", "completions", "completion_ids", "parsed", *COLUMNS, "trainer_state", "log_extra", "log_metric")
_TRIED = 2  # rows on which rewards are tried before the model is loaded
_NAMED = 4  # rows that a message names


class RewardError(BalancedThinkingError, ValueError):
    """A reward of the user's own failed, or gave something else than a number per completion."""


def load_own_reward(name: str) -> OwnFunction:
    """The reward that `module:function` names.

    Raises RecipeError where there is none, where it is asynchronous, and where it needs an argument that no row has.
    """
    own = load_own_function(name, "reward")
    where = f"the reward {name!r} in {own.file}"
    if inspect.iscoroutinefunction(own.call) or inspect.iscoroutinefunction(type(own.call).__call__):
        raise RecipeError(f"{where} is asynchronous; expected a plain function, which may run its own event loop")
    for key, parameter in own.parameters().items():
        is_needed = parameter.default is Parameter.empty and parameter.kind not in (
            Parameter.VAR_KEYWORD,
            Parameter.VAR_POSITIONAL,
        )
        if parameter.kind is Parameter.POSITIONAL_ONLY or (is_needed and key not in KEYWORDS):
            raise RecipeError(
                f"{where} takes {key!r}, which is never given; expected some of: {', '.join(KEYWORDS)}, and **columns"
            )
    return own


class OwnReward(ParsedReward):
    """A reward of the user's own as TRL calls it, whose numbers are checked."""

    def __init__(self, own: OwnFunction, processor: Any, format: ReasoningFormat) -> None:
        super().__init__(own.name, processor, format)
        self.own, named = own, own.parameters()
        takes_all = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in named.values())
        self._taken = None if takes_all else frozenset(named)

    def __call__(
        self, *, completion_ids: Sequence[Sequence[int]], prompts: Sequence[Any] | None = None, **columns: Any
    ) -> list[float | None]:
        parsed = [one.parsed for one in self.parse_completions(completion_ids, prompts)]
        given = {"prompts": prompts, "completion_ids": completion_ids, "parsed": parsed, **columns}
        if (written := columns.get("completions")) is not None:
            given["completions"] = [_with_tags(one, found.text) for one, found in zip(written, parsed, strict=True)]
        if self._taken is not None:
            given = {key: value for key, value in given.items() if key in self._taken}
        ids = [str(one) for one in columns.get("id") or ["?"] * len(parsed)]
        try:
            returned = self.own.call(**given)
        except Exception as error:  # whatever the user's code raises
            raise RewardError(
                f"the reward {self.own.name!r} failed{self._find_line(error)} for {_name_rows(ids)}: "
                f"{type(error).__name__}: {error}"
            ) from error
        return self._check_numbers(returned, parsed, ids)

    def _find_line(self, error: Exception) -> str:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(self.own.file)]
        return f" in line {lines[-1]} of {self.own.file.name}" if lines else ""

    def _check_numbers(self, returned: Any, parsed: Sequence[Parsed], ids: Sequence[str]) -> list[float | None]:
        said = f"the reward {self.own.name!r}"
        expected = f"expected a list of {len(parsed)} numbers, one per completion"
        values = returned.tolist() if hasattr(returned, "tolist") else returned  # of torch or NumPy
        if not isinstance(values, list | tuple):
            raise RewardError(f"{said} returned {type(returned).__name__}; {expected}")
        if len(values) != len(parsed):
            raise RewardError(f"{said} returned {len(values)} values; {expected}")
        values = [one.item() if getattr(one, "ndim", None) == 0 else one for one in values]  # as `tolist` would
        for row, value in zip(ids, values, strict=True):
            if value is not None and not (isinstance(value, Real) and math.isfinite(value)):
                raise RewardError(
                    f"{said} gave {value!r} for row {row}; expected a finite number, or None where it does not apply"
                )
        return [None if value is None else float(value) for value in values]


def _with_tags(completion: Any, text: str) -> Any:
    """TRL's completion with the complete text: TRL leaves out special tokens, which tags can be."""
    if isinstance(completion, str):
        return text
    return [{**message, "content": text} for message in completion] if len(completion) == 1 else completion


def _name_rows(ids: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(ids))
    return f"{'row' if len(distinct) == 1 else 'rows'} {list_some(distinct, _NAMED)}"


def try_own_rewards(args: Any, rows: Any, processor: Any) -> None:
    """Call every reward and scorer of the user's own on the right answers of a few rows, before the model is loaded.

    Args:
        args: a `ScaleGRPOConfig`; other arguments have no rewards. rows: of `to_prompts_dataset`.

    Raises RecipeError where one fails or gives something else than numbers.
    """
    names = [name for name in getattr(args, "rewards", None) or () if is_own_name(name)]
    scorer = str(getattr(args, "reward_scorer", ""))
    tried = [dict(row) for row in islice(rows, _TRIED)] if names or is_own_name(scorer) else []
    if is_own_name(scorer):
        _try_scorer(scorer, tried)
    if not names or not tried:
        return
    from transformers import TrainerState

    from balanced_thinking.training.grpo_inputs import open_images

    shape = get_format(args.reasoning_format)
    texts = [render("...", row["answer"], shape) for row in tried]
    opened: dict[Any, Any] = {}
    columns = _columns_of([open_images(row, opened) for row in tried])
    steps, epochs = max(1, args.max_steps), max(1, math.ceil(args.num_train_epochs))
    about = TrainerState(max_steps=steps, num_train_epochs=epochs)  # which rewards may divide by
    for name in names:
        reward = OwnReward(load_own_reward(name), processor, shape)
        ids = [reward.encode(text) for text in texts]
        try:
            reward(
                completion_ids=ids,
                completions=[[{"role": "assistant", "content": text}] for text in texts],
                trainer_state=about,
                log_extra=lambda *_: None,
                log_metric=lambda *_: None,
                **columns,
            )
        except RewardError as error:
            raise RecipeError(f"{error} (tried on the right answers)") from error


def _columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows as TRL gives them to rewards."""
    columns = {key: [row[key] for row in rows] for key in rows[0] if key != "prompt"}
    return {"prompts": [row["prompt"] for row in rows], **columns}


def _try_scorer(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    score = get_scorer(name)
    for row in rows:
        try:
            score(row["answer"], row["answer"], row.get("choices") or ())
        except ScorerError as error:
            raise RecipeError(f"row {row.get('id', '?')}: {error} (tried on the right answer)") from error
