"""The options of GRPO: TRL's and ours."""

from __future__ import annotations

from dataclasses import dataclass

from trl import GRPOConfig

from balanced_thinking.training.algorithms import AlgorithmArguments, algorithm_arguments
from balanced_thinking.training.options import ScaleGRPOOptions
from balanced_thinking.training.safety import set_device_defaults


@dataclass
class ScaleGRPOConfig(ScaleGRPOOptions, GRPOConfig):
    """TRL's `GRPOConfig` with rewards and algorithms by name, and the division of credit between thinking and answer.

    `algorithm` sets the arguments of its loss, except those that are given here.
    """

    def __post_init__(self) -> None:
        sets = algorithm_arguments(self.algorithm)
        for name in AlgorithmArguments.__dataclass_fields__:
            if getattr(self, name) is None:
                setattr(self, name, sets.get(name, getattr(GRPOConfig, name)))
        set_device_defaults(self)
        super().__post_init__()
        self.rewards = {"accuracy": 1.0, "format": 0.2} if self.rewards is None else self.rewards
        self.check_options()
