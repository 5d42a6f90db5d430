"""The loss of `balanced sft` for a training loop of one's own: from segments to weights, from logits to the loss.

Shapes: B rows, L positions, V tokens of the vocabulary, C = 3 columns of counts (see `loss.weights`). Nothing is
shifted by the caller: position i of logits predicts position i + 1 of labels, segments and weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from balanced_thinking.loss.schedules import TWO_WEIGHTS, Schedule
from balanced_thinking.loss.variants import NORMALIZE
from balanced_thinking.loss.weights import count_examples_and_tokens, token_weights
from balanced_thinking.segments.labels import UNSUPERVISED


def count_segments(batches: Iterable[Any]) -> torch.Tensor:
    """(2, C): the denominators of an optimizer step, counted over all its micro-batches.

    `batches` holds the segments of each, (B, L), as tensors or lists. With several ranks, sum the result over them.
    """
    return torch.stack([count_examples_and_tokens(torch.as_tensor(one)[:, 1:]) for one in batches]).sum(0)


def segment_weights(
    segments: Any,
    step: int,
    total_steps: int,
    *,
    schedule: Schedule | None = None,
    normalize: str = "example",
    counts: torch.Tensor | None = None,
) -> torch.Tensor:
    """(B, L) float32: the weight of every token's loss at an optimizer step; 0 where nothing is supervised.

    Args:
        segments: (B, L), as `label_segments` gives them, as a tensor or lists.
        step: optimizer steps that were taken, from 0; after the last one its weights stay, for an evaluation.
        total_steps: how many there are.
        schedule: how the weight moves from thinking to answering; None for that of `balanced sft`.
        normalize: what a segment's mean runs over: `example`, `batch`, or `token` for plain SFT.
        counts: `count_segments` over all micro-batches of the step, so that the loss does not depend on how it is
            divided; None where these segments are the complete step.

    The weights of a step sum to 1, unless the schedule has two weights, as the default has. Raises ValueError for an
    unknown `normalize`, a step above `total_steps` and segments of another shape.
    """
    if normalize not in NORMALIZE:
        raise ValueError(f"normalize is {normalize!r}; known: {', '.join(NORMALIZE)}")
    if not 0 <= step <= total_steps or total_steps < 1:
        raise ValueError(f"step is {step} and total_steps {total_steps}; expected 0 <= step <= total_steps")
    ids = torch.as_tensor(segments)
    if ids.dim() != 2:
        raise ValueError(f"segments have the shape {tuple(ids.shape)}; expected (B, L), a row per example")
    counts = count_segments([ids]) if counts is None else counts.to(ids.device)
    think, answer = (schedule or TWO_WEIGHTS).weights(min(1.0, step / max(1, total_steps - 1)))
    weights = token_weights(ids[:, 1:], counts, think, answer, normalize)
    return torch.cat([weights.new_zeros(len(ids), 1), weights], dim=1)


def weighted_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The weighted sum of the token losses (nats), a scalar in float32.

    Call `backward()` on each micro-batch as it is: the weights are divided by the step's counts already, so nothing is
    left to divide by the number of micro-batches. With DDP, which averages gradients, multiply by the number of ranks.

    Args:
        logits: (B, L, V). labels: (B, L), -100 where nothing is supervised. weights: (B, L), of `segment_weights`.

    Where logits are too large for memory, `weighted_linear_cross_entropy` gives the same from the hidden states.
    """
    targets = labels[:, 1:].to(logits.device)
    kept = targets != UNSUPERVISED
    nll = cross_entropy(logits[:, :-1][kept].float(), targets[kept], reduction="none")
    return (nll * weights[:, 1:].to(logits.device)[kept]).sum()
