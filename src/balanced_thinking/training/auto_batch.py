"""`auto_batch`: a micro-batch that does not fit in memory is halved and accumulated twice as often, in the same run.

The denominators of a step do not depend on how its samples are divided, so this changes nothing but rounding. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from balanced_thinking.config.errors import RecipeError

if TYPE_CHECKING:
    from balanced_thinking.training.recipe import Recipe

MICRO_BATCH, ACCUMULATION, GENERATION = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "steps_per_generation",
)
_DEFAULTS = {MICRO_BATCH: 8, ACCUMULATION: 1}  # transformers'
DIVISION_KEYS = frozenset(f"training.{name}" for name in (MICRO_BATCH, ACCUMULATION, GENERATION))


class Division(NamedTuple):
    """How a step's samples are divided: samples of a micro-batch, and micro-batches of a step."""

    micro_batch: int
    accumulation: int

    def smaller(self) -> Division | None:
        """With half of the micro-batch (an odd one: its largest proper divisor); None for a single sample."""
        factor = next((n for n in range(2, self.micro_batch + 1) if self.micro_batch % n == 0), None)
        return None if factor is None else Division(self.micro_batch // factor, self.accumulation * factor)


class MicroBatchTooLargeError(Exception):
    """Ends a training whose recipe has `auto_batch`, so that it is started again with a smaller micro-batch."""


def read_division(training: Mapping[str, Any]) -> Division:
    micro_batch, accumulation = (training.get(name) or default for name, default in _DEFAULTS.items())
    return Division(int(micro_batch), int(accumulation))


def divide_smaller(recipe: Recipe) -> Recipe:
    """The recipe with half of its micro-batch and the same steps. In GRPO the generation batch stays, too."""
    before = read_division(recipe.training)
    after = before.smaller()
    assert after is not None, "a single sample cannot be divided"
    training = recipe.training | {MICRO_BATCH: after.micro_batch, ACCUMULATION: after.accumulation}
    if recipe.training.get(GENERATION):
        training[GENERATION] = recipe.training[GENERATION] * (after.accumulation // before.accumulation)
    return replace(recipe, training=training)


def describe_division(recipe: Recipe) -> str:
    division = read_division(recipe.training)
    return f"{MICRO_BATCH} {division.micro_batch} and {ACCUMULATION} {division.accumulation}"


def keep_found_division(saved: Recipe, recipe: Recipe) -> Recipe:
    """`recipe` with the smaller micro-batch that the run has found to fit, if only that differs."""
    if not is_same_but_divided(saved, recipe):
        return recipe
    kept = {name: saved.training[name] for name in (MICRO_BATCH, ACCUMULATION, GENERATION) if name in saved.training}
    return replace(recipe, training=recipe.training | kept)


def is_same_but_divided(saved: Recipe, recipe: Recipe) -> bool:
    """Whether `auto_batch` may have made the division of the saved recipe from that of the other."""
    ours, theirs = read_division(saved.training), read_division(recipe.training)
    if not recipe.auto_batch or ours.micro_batch >= theirs.micro_batch:
        return False
    before, after = recipe.training.get(GENERATION) or 0, saved.training.get(GENERATION) or 0
    return (
        ours.micro_batch * ours.accumulation == theirs.micro_batch * theirs.accumulation
        and ours.micro_batch * after == theirs.micro_batch * before
    )


def refuse_inexact_division(auto_batch: bool, arguments: Mapping[str, Any]) -> None:
    """Raises RecipeError where dividing a step in another way would train another model."""
    if arguments.get("auto_find_batch_size"):
        raise RecipeError(
            "auto_find_batch_size is true: it makes the global batch smaller, so another model is trained. Leave it "
            "out and use auto_batch: true, which keeps the global batch"
        )
    refused = {
        "loss_type": (arguments.get("loss_type") == "bnpo", "bnpo's mean runs over a micro-batch"),
        "dataloader_drop_last": (bool(arguments.get("dataloader_drop_last")), "it drops another number of rows"),
        "top_entropy_quantile": (
            arguments.get("top_entropy_quantile", 1.0) < 1,
            "its quantile is that of a micro-batch's tokens",
        ),
        "entropy_coef": (bool(arguments.get("entropy_coef")), "its mean runs over a micro-batch"),
        "use_adaptive_entropy": (bool(arguments.get("use_adaptive_entropy")), "its mean runs over a micro-batch"),
        "router_aux_loss_coef": (bool(arguments.get("router_aux_loss_coef")), "it is a mean per micro-batch"),
    }
    for name, (found, why) in refused.items():
        if auto_batch and found:
            raise RecipeError(f"auto_batch cannot be exact with {name} {arguments[name]}: {why}. Leave one of them out")


def refuse_several_ranks(auto_batch: bool, ranks: int) -> None:
    """Raises RecipeError for `auto_batch` on several ranks: one that lacks memory cannot stop the others in time."""
    if auto_batch and ranks > 1:
        raise RecipeError(
            f"auto_batch works in one process, and this training has {ranks}: leave it out, and set "
            f"{MICRO_BATCH} and {ACCUMULATION}; halving one and doubling the other trains the same"
        )
