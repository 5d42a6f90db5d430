"""Whether GRPO can learn from its completions: a warning with the cure while it cannot, an error where it never could.

Three generations in a row decide: one generation may hold a single prompt, whose completions often earn the same. The
counts are part of the trainer's state, so that every checkpoint holds them.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from balanced_thinking.config.errors import BalancedThinkingError
from balanced_thinking.runs.advice import MAJORITY, TRAINING_WARNINGS

logger = logging.getLogger(__name__)
KEY = "generation_health"
GENERATIONS = 3
_EQUAL = 1e-6  # rewards that differ by less, relative to the largest, are equal: sums of float32


class NothingLearnedError(BalancedThinkingError, RuntimeError):
    """A run in which no completion ever had an advantage."""


@dataclass(frozen=True)
class Generation:
    """One generation of all ranks.

    rewards: of each reward function, one number per completion; groups follow one another. used: whether a completion
    is in the loss. clipped, empty: shares of the completions. problems: what the parser finds, on this rank.
    """

    rewards: Mapping[str, Sequence[float]]
    weights: Mapping[str, float]
    group_size: int
    used: Sequence[bool]
    clipped: float
    empty: float
    problems: Counter[str]

    def has_advantage(self) -> bool:
        """Whether the rewards of some prompt's completions differ, and one of these completions is in the loss."""
        totals = [self._total(row) for row in range(len(self.used))]
        for start in range(0, len(totals), self.group_size):
            group, used = (values[start : start + self.group_size] for values in (totals, self.used))
            known = [total for total in group if not math.isnan(total)]
            if any(used) and known and max(known) - min(known) > _EQUAL * max(1.0, *map(abs, known)):
                return True
        return False

    def _total(self, row: int) -> float:
        parts = [self.weights[name] * values[row] for name, values in self.rewards.items()]
        known = [part for part in parts if not math.isnan(part)]
        return sum(known) if known else math.nan

    def find_problems(self) -> list[str]:
        """Keys of TRAINING_WARNINGS."""
        format_rewards = self.rewards.get("format")
        found = {
            "all_clipped": self.clipped == 1,
            "most_clipped": MAJORITY <= self.clipped < 1,
            "all_empty": self.empty == 1,
            "no_format": format_rewards is not None and not any(format_rewards),
            "no_advantage": not self.has_advantage(),
        }
        return [name for name, holds in found.items() if holds]


def count_generation(state: Any, generation: Generation) -> None:
    """Enter a generation in the trainer's state, and warn once of each problem that holds for several in a row."""
    before = state.stateful_callbacks.get(KEY, {})
    problems = generation.find_problems()
    streaks = {name: before.get("streaks", {}).get(name, 0) + 1 for name in problems}
    warned = [*before.get("warned", [])]
    for name in (name for name in problems if streaks[name] >= GENERATIONS and name not in warned):
        warned.append(name)
        if state.is_world_process_zero:
            logger.warning("%s", _warning_text(name, streaks[name], generation))
    state.stateful_callbacks[KEY] = {
        "generations": before.get("generations", 0) + 1,
        "completions": before.get("completions", 0) + len(generation.used),
        "streaks": streaks,
        "warned": warned,
        "learned": before.get("learned", False) or "no_advantage" not in problems,
    }


def active_warnings(state: Any) -> tuple[str, ...]:
    """Keys of TRAINING_WARNINGS that hold now; at the last step also those that held from the first one on."""
    counts = (state.stateful_callbacks or {}).get(KEY)
    if not counts:
        return ()
    at_the_end = state.max_steps > 0 and state.global_step >= state.max_steps
    needed = min(GENERATIONS, counts["generations"]) if at_the_end else GENERATIONS
    names = [name for name in TRAINING_WARNINGS if counts["streaks"].get(name, 0) >= needed]
    return (*names, *(["nothing_learned"] if at_the_end and not counts["learned"] else []))


def conclude_health(state: Any, saved: str) -> None:
    """Warn of what held until the end of a run that was too short for a warning before.

    Raises NothingLearnedError where no completion of the run had an advantage. `saved`: where its model is.
    """
    counts = state.stateful_callbacks.get(KEY)
    if not counts:
        return
    always = [name for name in TRAINING_WARNINGS if counts["streaks"].get(name, 0) == counts["generations"]]
    if counts["learned"]:
        for name in (name for name in always if name not in counts["warned"] and state.is_world_process_zero):
            logger.warning("in all %d generations %s", counts["generations"], TRAINING_WARNINGS[name])
        return
    why = TRAINING_WARNINGS[always[0]] if always else TRAINING_WARNINGS["no_advantage"]
    raise NothingLearnedError(
        f"nothing was learned: none of the {counts['completions']} completions had an advantage, so every gradient was "
        f"0. {why[0].upper()}{why[1:]}. {saved} holds the model as the run found it"
    )


def _warning_text(name: str, streak: int, generation: Generation) -> str:
    often = ", ".join(f"{problem} ({count})" for problem, count in generation.problems.most_common(3))
    shown = f". The parser found: {often}" if often and name == "no_format" else ""
    return f"in the last {streak} generations {TRAINING_WARNINGS[name]}{shown}"
