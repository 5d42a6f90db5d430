"""Variants of GRPO by name: what each sets among TRL's arguments. No torch.

To add one, give it a line in `ALGORITHMS`. docs/training.md has the same table with its sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from balanced_thinking.config.types import as_plain_yaml

DEFAULT_REWARDS: Mapping[str, float] = MappingProxyType({"accuracy": 1.0, "format": 0.2})
_NULL_HELP = "null: what the algorithm sets, or else TRL's default."


def _argument(meaning: str) -> Any:
    return field(default=None, metadata={"help": f"{meaning}; {_NULL_HELP}"})


@dataclass
class AlgorithmArguments:
    """TRL's arguments that an algorithm sets. None, and not TRL's default, says that the user leaves one open."""

    loss_type: str | None = _argument("TRL's form of the loss, such as grpo, dapo, dr_grpo")
    importance_sampling_level: str | None = _argument("What has a ratio of new to old policy: token or sequence")
    scale_rewards: str | None = _argument("Standard deviation that divides the rewards: group, batch or none")
    epsilon: float | None = _argument("The ratio of new to old policy is clipped this far below 1")
    epsilon_high: float | None = _argument("The ratio is clipped this far above 1, by default as far as below")
    beta: float | None = _argument("Weight of the distance (KL) from the reference model, 0: none")
    mask_truncated_completions: bool | None = _argument("Whether completions that were cut off have no loss")
    use_bias_correction_kl: bool | None = _argument("Whether the distance (KL) is weighted by the ratio, too")


class Algorithm(NamedTuple):
    """`sets`: TRL's arguments. `lacks`: what the paper has and TRL has not, or not as an argument."""

    sets: Mapping[str, Any]
    lacks: str = ""


_NAMES = (
    *("loss_type", "importance_sampling_level", "scale_rewards", "epsilon", "epsilon_high", "beta"),
    "mask_truncated_completions",
)


def _algorithm(*values: Any, lacks: str = "", **more: Any) -> Algorithm:
    """One row of the table: values in the order of `_NAMES`, and what no other algorithm sets."""
    return Algorithm(MappingProxyType(dict(zip(_NAMES, values, strict=True)) | more), lacks)


# An epsilon_high of None is epsilon. Sources: arXiv:2402.03300 (its epsilon is PPO's), 2503.14476 section 4.1,
# 2503.20783 section 3.2 and its repository, 2507.18071 section 5.1; TRL's paper index has the last three.
ALGORITHMS: Mapping[str, Algorithm] = MappingProxyType(
    {
        "grpo": _algorithm("grpo", "token", "group", 0.2, None, 0.04, False, use_bias_correction_kl=False),
        "dapo": _algorithm(
            *("dapo", "token", "group", 0.2, 0.28, 0.0, True),
            lacks="TRL has no dynamic sampling, and overlong shaping is a reward (see docs/training.md)",
        ),
        "dr-grpo": _algorithm("dr_grpo", "token", "none", 0.2, None, 0.0, False),
        "gspo": _algorithm("grpo", "sequence", "group", 3e-4, 4e-4, 0.0, False),
    }
)


def algorithm_arguments(name: str | None) -> Mapping[str, Any]:
    """TRL's arguments that an algorithm sets; none for None, and for a name that is not known."""
    return ALGORITHMS[name].sets if name is not None and name in ALGORITHMS else {}


def describe_algorithm(args: Any) -> str | None:
    """In one line, what the algorithm of a `ScaleGRPOConfig` sets and what of it the user has set otherwise."""
    name = args.algorithm
    if name is None:
        return None
    sets, lacks = ALGORITHMS[name]
    kept = {key: value for key, value in sets.items() if getattr(args, key) == value}
    parts = [f"{name}: {', '.join(f'{key} {as_plain_yaml(value)}' for key, value in kept.items())}"]
    parts += [
        f"{key} is yours, {as_plain_yaml(getattr(args, key))} ({name} has {as_plain_yaml(value)})"
        for key, value in sets.items()
        if key not in kept
    ]
    if args.num_iterations == 1 and args.steps_per_generation <= args.gradient_accumulation_steps:
        parts.append(
            "with one update a generation no ratio is clipped; raise steps_per_generation or num_iterations for more"
        )
    return "; ".join([*parts, lacks] if lacks else parts)
