"""The completions of an unfinished generation cycle, divided among smaller micro-batches (`auto_batch`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trl.trainer.utils import split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

_GROW = ("micro_step", "steps_per_generation", "gradient_accumulation_steps")
_MICRO_BATCH = "per_device_train_batch_size"


def divide_generation_state(state: dict[str, Any], expected: Mapping[str, int]) -> dict[str, Any]:
    """A checkpoint's generation state with each micro-batch divided as `expected` asks, where only that differs.

    TRL divides a generation in order: the parts are those that the smaller micro-batch would have had from the start.
    """
    found = state.get("about")
    if not found:
        return state
    factor, rest = divmod(found[_MICRO_BATCH], expected[_MICRO_BATCH])
    if factor < 2 or rest:
        return state
    divided = {name: value * factor if name in _GROW else value for name, value in found.items()}
    if divided | {_MICRO_BATCH: expected[_MICRO_BATCH]} != dict(expected):
        return state
    parts = [part for one in state.get("inputs", ()) for part in _divide_batch(one, factor)]
    return {**state, "about": dict(expected), **({"inputs": parts} if "inputs" in state else {})}


def _divide_batch(batch: dict[str, Any], factor: int) -> list[dict[str, Any]]:
    parts = split_tensor_dict(split_pixel_values_by_grid(batch), factor)
    return [unsplit_pixel_values_by_grid(part) for part in parts]
