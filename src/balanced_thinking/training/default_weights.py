"""What weighs the tokens where training arguments leave it open. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from balanced_thinking.loss.schedules import FIXED_WEIGHTS, TWO_WEIGHTS, Schedule

_THINK = {"think_weight_start": TWO_WEIGHTS.start, "think_weight_end": TWO_WEIGHTS.end}
_ANSWER = {"answer_weight_start": TWO_WEIGHTS.answer_start, "answer_weight_end": TWO_WEIGHTS.answer_end}
_WEIGHTS = ("schedule", *_THINK, *_ANSWER)
WEIGHTING_OPTIONS = ("weighting", *_WEIGHTS)  # a run records these
ONE_WEIGHT = {"think_weight_start": Schedule.start, "think_weight_end": Schedule.end}  # where only one is given
# Of versions that did not record all of them.
EARLIER_DEFAULTS = {"weighting": "scale", "schedule": "cosine", "think_weight_start": 0.9, "think_weight_end": 0.5}


def resolve_weighting(values: Mapping[str, Any]) -> dict[str, Any]:
    """The weighting that some training arguments ask for, with all that decides it, as training arguments.

    Where nothing is given, it is `scale` with two weights: of all settings the one that is most often non-inferior to
    plain SFT (docs/results.md). For answers without thinking it is plain SFT.
    """
    chosen = values.get("weighting")
    if chosen is None:
        form = values.get("reasoning_format")
        answers_alone = getattr(form, "name", form) == "direct" and all(values.get(name) is None for name in _WEIGHTS)
        chosen = "uniform" if answers_alone else "scale"
    return {"weighting": chosen} | (resolve_segment_weights(values) if chosen == "scale" else {})


def resolve_segment_weights(values: Mapping[str, Any]) -> dict[str, Any]:
    """The schedule and its end points. Without the answer's own, its weight is 1 minus that of thinking."""
    given = {name: value for name in _WEIGHTS if (value := values.get(name)) is not None}
    chosen = {"schedule": TWO_WEIGHTS.name} | given
    if any(name in given for name in _ANSWER):
        return _THINK | chosen
    if any(name in given for name in _THINK) or str(chosen["schedule"]) in FIXED_WEIGHTS:
        return ONE_WEIGHT | chosen
    return _THINK | _ANSWER | chosen
