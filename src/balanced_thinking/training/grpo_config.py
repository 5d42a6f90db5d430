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
        self._refuse_inexact_resume()

    def _refuse_inexact_resume(self) -> None:
        """Raises ValueError for checkpoints within a generation cycle: resuming would generate other completions."""
        cycle = self.steps_per_generation * self.num_iterations
        if self.save_strategy == "steps" and (self.save_steps * self.gradient_accumulation_steps) % cycle:
            raise ValueError(
                f"save_steps={self.save_steps} falls inside a generation cycle of {cycle} micro-batches "
                f"(steps_per_generation x num_iterations), so that resuming would not be exact; choose a save_steps "
                f"with save_steps x gradient_accumulation_steps a multiple of {cycle}"
            )
