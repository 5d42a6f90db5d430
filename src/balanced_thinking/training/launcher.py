"""The mixed precision that `accelerate launch` asks for in the environment.

Upstream lets it win over an argument that is false, and neither its log nor a run's folder would say so.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from balanced_thinking.config.errors import RecipeError

if TYPE_CHECKING:
    from balanced_thinking.training.recipe import Recipe

_VARIABLE = "ACCELERATE_MIXED_PRECISION"
_KNOWN = ("bf16", "fp16")


def launched_precision(bf16: bool | None, fp16: bool | None) -> str | None:
    """The argument that the launcher asks to be true, `bf16` or `fp16`; None where it asks for nothing.

    Raises RecipeError where the arguments say otherwise. With bf16 null, and without fp16, they leave it open.
    """
    asked = os.environ.get(_VARIABLE, "no").lower()
    if asked == "no":
        return None
    if asked not in _KNOWN:
        raise RecipeError(f"{_VARIABLE} is {asked!r}, which is not supported; expected no, bf16 or fp16")
    stated = "fp16" if fp16 else None if bf16 is None else "bf16" if bf16 else "no"
    if stated not in (None, asked):
        found = "bf16 is false" if stated == "no" else f"{stated} is true"
        raise RecipeError(
            f"{found}, but {_VARIABLE} is {asked!r} (`accelerate launch --mixed_precision {asked}`, or its "
            f"configuration): set only {asked} to true, or start without it (--mixed_precision no)"
        )
    return asked


def follow_launcher(recipe: Recipe) -> Recipe:
    """The recipe with the launcher's mixed precision where it leaves it open, so that a run records it."""
    stated = recipe.training
    asked = launched_precision(stated.get("bf16"), stated.get("fp16"))
    if asked is None or stated.get(asked):
        return recipe
    return replace(recipe, training={**stated, **precision_arguments(asked)})


def precision_arguments(asked: str) -> dict[str, bool]:
    """What to set for the launcher's precision. A CPU computes in bfloat16 where it is asked for it by name."""
    import torch  # only where a launcher has asked

    on_cpu = asked == "bf16" and not torch.accelerator.is_available()
    return {asked: True, **({"use_cpu": True} if on_cpu else {})}
