"""SCALe itself: the weighted head, the schedules, the weights, and the functions for training loops of one's own.

The names are imported at their first use, because schedules need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from balanced_thinking.loss.linear_cross_entropy import LossOutput, weighted_linear_cross_entropy
    from balanced_thinking.loss.own_loops import count_segments, segment_weights, weighted_cross_entropy
    from balanced_thinking.loss.schedules import Schedule

__all__ = [
    "LossOutput",
    "Schedule",
    "count_segments",
    "segment_weights",
    "weighted_cross_entropy",
    "weighted_linear_cross_entropy",
]
_HOMES = {
    "LossOutput": "linear_cross_entropy",
    "Schedule": "schedules",
    "count_segments": "own_loops",
    "segment_weights": "own_loops",
    "weighted_cross_entropy": "own_loops",
    "weighted_linear_cross_entropy": "linear_cross_entropy",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
