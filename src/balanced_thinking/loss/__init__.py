"""SCALe itself: the weighted head, the schedules, the weights.

`weighted_linear_cross_entropy` and `LossOutput` are imported at their first use, because schedules need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from balanced_thinking.loss.linear_cross_entropy import LossOutput, weighted_linear_cross_entropy

__all__ = ["LossOutput", "weighted_linear_cross_entropy"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from balanced_thinking.loss import linear_cross_entropy

    return getattr(linear_cross_entropy, name)
