"""`match_gradient_norm`: the gradient of every step has the same norm, so that arms differ in its direction alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from balanced_thinking.config.errors import RecipeError


class MatchedGradientNorm:
    """A mixin for a `Trainer`, in front of `FiniteUpdates`: scales the gradient of a step up or down to a norm.

    It happens where the gradient would be clipped: after all micro-batches, and after the ranks have averaged. The log
    has the norm from before.
    """

    args: Any
    is_deepspeed_enabled: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.match_gradient_norm is not None and self.is_deepspeed_enabled:
            raise RecipeError(
                f"match_gradient_norm is {self.args.match_gradient_norm}, but DeepSpeed keeps its gradients to itself; "
                "use DDP or FSDP, or leave match_gradient_norm out"
            )

    def _clip_grad_norm(self, model: Any) -> Any:
        if self.args.match_gradient_norm is None:
            return super()._clip_grad_norm(model)  # type: ignore[misc]
        return None  # `_get_grad_norm` measures it; max_grad_norm is not lower, so there is nothing to clip

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[misc]
        if self.args.match_gradient_norm is not None and norm is not None:
            # A step that was left out has no gradients any more.
            gradients = [one.grad for one in model.parameters() if one.grad is not None]
            scale_to_norm_(gradients, norm, self.args.match_gradient_norm)
        return norm


@torch.no_grad()
def scale_to_norm_(gradients: Iterable[Tensor], norm: Any, target: float) -> None:
    """Multiply gradients of this total norm so that it becomes `target`. Zero gradients stay zero.

    Works on the local parts of sharded gradients (FSDP2's DTensors), for which `norm` is that of all parts. No value
    leaves the device.
    """
    total = torch.as_tensor(norm.full_tensor() if hasattr(norm, "full_tensor") else norm).float()
    factor = torch.where(total > 0, target / total, torch.zeros_like(total))
    for gradient in gradients:
        local: Any = gradient.to_local() if hasattr(gradient, "to_local") else gradient
        local.mul_(factor.to(local.device))
