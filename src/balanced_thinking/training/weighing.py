"""The options of a trainer -> the weight of every token of its batches.

Shapes: E samples, P predicted positions, C = 3 columns of counts (see `loss.weights`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from balanced_thinking.batch.info import BATCH_INFO, CLOSING_TAGS, BatchInfo, segments_of_targets
from balanced_thinking.loss.weightings import WEIGHTINGS, Progress, StepWeights, evaluation_weights
from balanced_thinking.loss.weights import (
    closing_tag_factors,
    count_examples_and_tokens,
    count_weighted_tokens,
    token_weights,
    tokens_per_segment,
)
from balanced_thinking.segments import IGNORE, THINK
from balanced_thinking.training.options import ScaleSFTOptions


class WeighedTokens(NamedTuple):
    """The weight of every token, (E, P), and the counts of `weighted_linear_cross_entropy` where they are known."""

    weights: Tensor
    counts: tuple[int, int] | None


class TokenGate(NamedTuple):
    """`gate` and `gated_T` of `weighted_linear_cross_entropy`, the mask in the shape of a batch's segments."""

    kind: str = "none"
    gated: Tensor | None = None


class TokenWeigher:
    """Counts the denominators of a step, and weighs its tokens."""

    def __init__(self, options: ScaleSFTOptions) -> None:
        self.options, self.schedule = options, options.weight_schedule()

    @property
    def needs_marks(self) -> bool:
        """Whether batches must have marks of closing tags."""
        return self.options.closing_tag_factor != 1

    def describe(self) -> dict[str, Any]:
        """What decides the weight of a token, by the names of the options, as plain values; for a checkpoint."""
        options, chosen = self.options, self.options.chosen_weighting
        found: dict[str, Any] = {"weighting": chosen, "closing_tag_factor": float(options.closing_tag_factor)}
        found |= {"token_gate": options.token_gate, "token_gate_on": options.token_gate_on}
        if chosen in ("scale", "sftkey"):
            found["normalize"] = options.normalize
            found |= {f"schedule_{name}": float(getattr(self.schedule, name)) for name in ("hold_start", "hold_end")}
        if chosen == "scale":
            found["schedule"] = self.schedule.name
            for end, share in (("start", 0.0), ("end", 1.0)):
                weights = self.schedule.weights(share, moved_at=0.0)
                found |= {f"{name}_weight_{end}": round(float(weight), 6) for name, weight in weights._asdict().items()}
        if found.get("schedule") == "adaptive":
            found |= {name: float(getattr(options, name)) for name in ("adaptive_tolerance", "adaptive_latest")}
        return found

    def step_weights(self, progress: Progress) -> StepWeights:
        return WEIGHTINGS[self.options.chosen_weighting](self.schedule, self.options.normalize, progress)

    def evaluation_weights(self) -> StepWeights:
        return evaluation_weights(self.options.chosen_weighting, self.options.normalize)

    def find_factors(self, batch: dict[str, Any], info: BatchInfo) -> Tensor | None:
        """(E, P): the factor of every token; None where all are 1. Raises ValueError for a batch without marks."""
        if not self.needs_marks:
            return None
        if CLOSING_TAGS not in batch:
            raise ValueError(
                f"closing_tag_factor is {self.options.closing_tag_factor}, but the batch has no {CLOSING_TAGS!r}: "
                "leave data_collator out, or call mark_closing_tags() of your ScaleCollator"
            )
        return closing_tag_factors(info.unpack_samples(batch[CLOSING_TAGS][:, 1:]), self.options.closing_tag_factor)

    def find_gate(self, segments: Tensor) -> TokenGate:
        """The gate on the tokens of a batch."""
        kind, of_all = self.options.token_gate, self.options.token_gate_on == "all"
        return TokenGate() if kind == "none" else TokenGate(kind, None if of_all else segments == THINK)

    def count_batch(self, batch: dict[str, Any]) -> Tensor:
        """(2, C): the batch's `count_examples_and_tokens`, before it is moved to its device.

        Also notes in the batch how many supervised tokens each segment has.
        """
        info, segments = BatchInfo.from_batch(batch), segments_of_targets(batch)
        samples, factors = info.unpack_samples(segments), self.find_factors(batch, info)
        # A user's own collator may have labels that differ from segments.
        if torch.equal(batch["labels"][:, 1:] != -100, segments != IGNORE):
            batch[BATCH_INFO] = replace(info, supervised=tuple(tokens_per_segment(samples).sum(0).tolist()))
        return count_examples_and_tokens(samples, factors)

    def weigh_tokens(
        self,
        segments: Tensor,
        weights: StepWeights,
        counts: Tensor | None,
        factors: Tensor | None,
        supervised: tuple[int, ...] | None,
    ) -> WeighedTokens:
        """`counts` are the step's denominators; None for those of these segments alone."""
        counts = count_examples_and_tokens(segments, factors) if counts is None else counts
        known = count_weighted_tokens(supervised, *weights) if supervised else None
        return WeighedTokens(token_weights(segments, counts, *weights, factors), known)
