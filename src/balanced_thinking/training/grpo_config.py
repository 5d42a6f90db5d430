"""The options of GRPO: TRL's and ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trl import GRPOConfig

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.training.algorithms import DEFAULT_REWARDS, AlgorithmArguments, algorithm_arguments
from balanced_thinking.training.best_checks import higher_is_better, refuse_loss_as_default
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
        refuse_loss_as_default(self)
        set_device_defaults(self)
        known: bool | None = getattr(self, "greater_is_better", None)
        self.greater_is_better = higher_is_better(self.metric_for_best_model) if known is None else known
        try:
            super().__post_init__()
        except ValueError as error:
            if "number of generations used for evaluation" in str(error):
                self.refuse_split_groups()
            if "divisible by num_generations" not in str(error):
                raise
            raise ValueError(
                f"{error} A step has per_device_train_batch_size x gradient_accumulation_steps completions on each "
                f"rank, which must be a multiple of num_generations, {self.num_generations}"
            ) from error
        self.rewards = dict(DEFAULT_REWARDS) if self.rewards is None else self.rewards
        check_after_upstream("grpo", self)
        if self.eval_on_start:
            self.refuse_split_groups()
        self.check_options()

    def refuse_split_groups(self) -> None:
        """Raises RecipeError for a batch of an evaluation that does not have all completions of each of its prompts."""
        group, batch = self.num_generations_eval or self.num_generations, self.per_device_eval_batch_size
        if batch * self.world_size % group:
            of_ranks = f" on each of {self.world_size} ranks" if self.world_size > 1 else ""
            raise RecipeError(
                f"per_device_eval_batch_size is {batch}{of_ranks}, which is not a multiple of the {group} completions "
                f"of each prompt in an evaluation (num_generations_eval, or else num_generations); set one to fit"
            )
