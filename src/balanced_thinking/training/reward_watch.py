"""Rewards, advantages and log-probabilities of GRPO that are NaN or infinite, by name.

A reward function may return None where it does not apply; TRL turns that into NaN and leaves it out. A NaN that a
function itself returns would be left out in the same way, in silence.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from trl.trainer.utils import is_async_callable

from balanced_thinking.system.text import list_some
from balanced_thinking.training.nonfinite_error import NonFiniteError

_NAMED = 8
_LOGPS = {"ref_per_token_logps": "reference model", "old_per_token_logps": "model before this update"}


class RewardWatch:
    """Notes each reward that is NaN or infinite while reward functions run.

    Args:
        functions: the trainer's. names: what they are called. ids: of the rows that they get.
    """

    def __init__(self, functions: Sequence[Any], names: Sequence[str], ids: Sequence[str]) -> None:
        self.ids, self.found = ids, list[str]()
        self.functions = [self._watched(one, name) for one, name in zip(functions, names, strict=True)]

    def _watched(self, function: Any, name: str) -> Any:
        """The function as TRL sees it, whose values are looked at. A reward model gives numbers only, never None."""
        if isinstance(function, torch.nn.Module):
            return function

        async def watch_later(*args: Any, **kwargs: Any) -> Any:
            return self._note(name, await function(*args, **kwargs))

        def watch_now(*args: Any, **kwargs: Any) -> Any:
            return self._note(name, function(*args, **kwargs))

        return watch_later if is_async_callable(function) else watch_now

    def _note(self, name: str, returned: Iterable[float | None]) -> list[float | None]:
        rewards = list(returned)  # TRL takes what can be read only once, too
        for place, reward in enumerate(rewards):
            if reward is not None and not math.isfinite(reward):
                row = self.ids[place] if place < len(self.ids) else "?"
                self.found.append(f"{name} gave {float(reward)} for row {row}")
        return rewards

    def note_models(self, names: Sequence[str], rewards: Tensor, functions: Sequence[Any]) -> None:
        """Look at what reward models gave: rewards are (B, F), of all ranks."""
        for place, (name, function) in enumerate(zip(names, functions, strict=True)):
            bad = 0 if not isinstance(function, torch.nn.Module) else int((~torch.isfinite(rewards[:, place])).sum())
            if bad:
                self.found.append(f"{name} gave {bad} rewards that are not finite")

    def refuse_found(self, step: int, ranks: int) -> None:
        """Raises NonFiniteError, on all ranks, where a reward was not finite."""
        found = gather_object(self.found) if ranks > 1 else self.found
        if found:
            raise NonFiniteError(
                f"rewards are not finite at optimizer step {step}: {list_some(found, _NAMED, '; ')}. Training "
                "stopped before this update. A reward must be a finite number, or None where it does not apply: "
                "correct the reward function, or leave it out"
            )


def refuse_nonfinite_generation(output: dict[str, Any], ids: Sequence[str], step: int, accelerator: Any) -> None:
    """Raises NonFiniteError, on all ranks, for advantages or log-probabilities of a generation that are not finite."""
    found = []
    advantages = output.get("advantages")
    if isinstance(advantages, Tensor):
        finite = torch.isfinite(advantages).reshape(len(advantages), -1).all(1).tolist()
        if rows := [row for row, good in zip(ids, finite, strict=False) if not good]:
            found.append(f"the advantages of {_name_rows(rows)}")
    mask = output.get("completion_mask")
    for key, name in _LOGPS.items():
        logps = output.get(key)
        if isinstance(logps, Tensor) and isinstance(mask, Tensor):
            good = (torch.isfinite(logps) | ~mask.bool()).all(1).tolist()
            if rows := [row for row, fine in zip(ids, good, strict=False) if not fine]:
                found.append(f"the log-probabilities that the {name} gives to {_name_rows(rows)}")
    found = list(gather_object(found)) if accelerator.num_processes > 1 else found
    if found:
        raise NonFiniteError(
            f"{'; '.join(found)} are not finite at optimizer step {step}. Training stopped before this update: look at "
            "these rows and at the rewards; lower learning_rate where the model itself has diverged"
        )


def _name_rows(rows: Sequence[str]) -> str:
    return list_some(list(dict.fromkeys(rows)), _NAMED)
