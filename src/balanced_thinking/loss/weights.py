"""Segment ids + segment weights + denominators -> one weight a token.

Shapes: B rows, L positions, S = 2 segments (think, answer). The weights of one optimizer step are divided by
denominators counted over the whole global batch, so that the loss does not depend on how the batch was cut into
micro-batches and ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from balanced_thinking.segments import ANSWER, THINK

SEGMENTS = (THINK, ANSWER)
NORMALIZE = ("example", "batch", "token")


def rows_per_segment(segment_ids_BL: torch.Tensor) -> torch.Tensor:
    """Tokens of each segment in each row: (B, S) int64."""
    return torch.stack([(segment_ids_BL == segment).sum(1) for segment in SEGMENTS], dim=1)


def count(segment_ids_BL: torch.Tensor) -> torch.Tensor:
    """The denominators' counts of one micro-batch: (2, S) int64, examples that have each segment and its tokens.

    They add up over micro-batches and ranks.
    """
    tokens_BS = rows_per_segment(segment_ids_BL)
    return torch.stack([(tokens_BS > 0).sum(0), tokens_BS.sum(0)])


def token_weights(
    segment_ids_BL: torch.Tensor, counts_2S: torch.Tensor, think: float, answer: float, normalize: str
) -> torch.Tensor:
    """The weight of every token's nll, (B, L) float32, zero where no segment owns the token.

    `counts_2S` is `count` summed over the global batch. `example`: each segment's mean over the example, then over the
    examples that have it; `batch`: its mean over all its tokens; `token`: one mean over all supervised tokens, which is
    plain SFT and ignores the segments' weights.
    """
    examples_S, tokens_S = counts_2S.clamp(min=1).to(torch.float32)
    if normalize == "token":
        total = counts_2S[1].sum().clamp(min=1).to(torch.float32)
        return (segment_ids_BL > 0).to(torch.float32) / total
    if normalize == "example":
        per_row_BS = 1 / (examples_S * rows_per_segment(segment_ids_BL).clamp(min=1))
    elif normalize == "batch":
        per_row_BS = (1 / tokens_S).expand(segment_ids_BL.shape[0], -1)
    else:
        raise ValueError(f"normalize is {normalize!r}; known: {', '.join(NORMALIZE)}")
    # Python numbers as factors: a tensor of them would wait for the device.
    per_row_BS = torch.stack([think * per_row_BS[:, 0], answer * per_row_BS[:, 1]], dim=1)
    # Column 0 serves the tokens of no segment.
    table_BS1 = torch.cat([per_row_BS.new_zeros(len(per_row_BS), 1), per_row_BS], dim=1)
    return table_BS1.gather(1, segment_ids_BL)


def weighted_counts(supervised_S: Sequence[int], think: float, answer: float, normalize: str) -> tuple[int, int]:
    """Of the supervised tokens of each segment: how many there are, and how many `token_weights` gives more than 0."""
    shares = (1.0, 1.0) if normalize == "token" else (think, answer)
    return sum(supervised_S), sum(n for n, share in zip(supervised_S, shares, strict=True) if share)
