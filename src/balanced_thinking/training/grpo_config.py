"""The options of GRPO: TRL's and ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trl import GRPOConfig

from balanced_thinking.training.algorithms import algorithm_arguments
from balanced_thinking.training.options import ScaleGRPOOptions
from balanced_thinking.training.safety import set_device_defaults


@dataclass
class ScaleGRPOConfig(ScaleGRPOOptions, GRPOConfig):
    """TRL's `GRPOConfig` with rewards and algorithms by name, and the division of credit between thinking and answer.

    `algorithm` sets the arguments of its loss, except those that are given here.
    """

    def __new__(cls, *_: Any, **given: Any) -> ScaleGRPOConfig:
        """Notes which arguments are given, because a dataclass cannot tell a given default from one that is not."""
        config = super().__new__(cls)
        config.given_arguments = frozenset(given)
        return config

    def __post_init__(self) -> None:
        for name, value in algorithm_arguments(self.algorithm, self.given_arguments).items():
            setattr(self, name, value)
        set_device_defaults(self)
        super().__post_init__()
        self.rewards = {"accuracy": 1.0, "format": 0.2} if self.rewards is None else self.rewards
        self.check_options()
