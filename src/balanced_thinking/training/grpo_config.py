"""The options of GRPO: TRL's and ours."""

from __future__ import annotations

from dataclasses import dataclass

from trl import GRPOConfig

from balanced_thinking.training.options import ScaleGRPOOptions
from balanced_thinking.training.safety import set_device_defaults


@dataclass
class ScaleGRPOConfig(ScaleGRPOOptions, GRPOConfig):
    """TRL's `GRPOConfig` with rewards by name, and the division of credit between thinking and answer."""

    def __post_init__(self) -> None:
        set_device_defaults(self)
        super().__post_init__()
        self.rewards = {"accuracy": 1.0, "format": 0.2} if self.rewards is None else self.rewards
        self.check_options()
