"""The options of GRPO: TRL's and ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trl import GRPOConfig

from balanced_thinking.training.algorithms import DEFAULT_REWARDS, AlgorithmArguments, algorithm_arguments
from balanced_thinking.training.config_checks import check_after_upstream, check_before_upstream
from balanced_thinking.training.options import ScaleGRPOOptions
from balanced_thinking.training.safety import set_device_defaults


@dataclass
class ScaleGRPOConfig(ScaleGRPOOptions, GRPOConfig):
    """TRL's `GRPOConfig` with rewards and algorithms by name, and the division of credit between thinking and answer.

    `algorithm` sets the arguments of its loss, except those that are given here.
    """

    _VALID_DICT_FIELDS: ClassVar = [*GRPOConfig._VALID_DICT_FIELDS, "reasoning_format"]  # may be JSON

    def __post_init__(self) -> None:
        sets = algorithm_arguments(self.algorithm)
        for name in AlgorithmArguments.__dataclass_fields__:
            if getattr(self, name) is None:
                setattr(self, name, sets.get(name, getattr(GRPOConfig, name)))
        check_before_upstream("grpo", self)
        set_device_defaults(self)
        try:
            super().__post_init__()
        except ValueError as error:
            if "divisible by num_generations" not in str(error):
                raise
            raise ValueError(
                f"{error} A step has per_device_train_batch_size x gradient_accumulation_steps completions on each "
                f"rank, which must be a multiple of num_generations, {self.num_generations}"
            ) from error
        self.rewards = dict(DEFAULT_REWARDS) if self.rewards is None else self.rewards
        check_after_upstream("grpo", self)
        self.check_options()
