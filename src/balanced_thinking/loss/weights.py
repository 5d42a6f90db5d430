"""Segment ids + segment weights + denominators -> one weight per token.

The weights of an optimizer step are divided by denominators that are counted over the complete global batch. So the
loss does not depend on how the batch was cut into micro-batches and ranks.

Shapes: B rows, L positions, S = 2 segments (think, answer).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from balanced_thinking.loss.variants import NORMALIZE
from balanced_thinking.segments import ANSWER, THINK

SEGMENTS = (THINK, ANSWER)


def tokens_per_segment(segment_ids_BL: torch.Tensor) -> torch.Tensor:
    """Number of tokens of each segment in each row: (B, S) int64."""
    return torch.stack([(segment_ids_BL == segment).sum(1) for segment in SEGMENTS], dim=1)


def count_examples_and_tokens(segment_ids_BL: torch.Tensor) -> torch.Tensor:
    """(2, S) int64: how many examples have each segment, and how many tokens it has in all of them.

    These denominators add up over micro-batches and ranks.
    """
    tokens_BS = tokens_per_segment(segment_ids_BL)
    return torch.stack([(tokens_BS > 0).sum(0), tokens_BS.sum(0)])


def token_weights(
    segment_ids_BL: torch.Tensor, counts_2S: torch.Tensor, think: float, answer: float, normalize: str
) -> torch.Tensor:
    """(B, L) float32: the weight of every token's nll, zero where no segment owns the token.

    `counts_2S` is `count_examples_and_tokens` summed over the global batch. `normalize` is one of:

    - `example`: each segment's mean over an example, then over the examples that have the segment;
    - `batch`: each segment's mean over all its tokens;
    - `token`: one mean over all supervised tokens. This is plain SFT; it ignores the segment weights.
    """
    examples_S, tokens_S = counts_2S.clamp(min=1).to(torch.float32)
    if normalize == "token":
        total = counts_2S[1].sum().clamp(min=1).to(torch.float32)
        return (segment_ids_BL > 0).to(torch.float32) / total
    if normalize == "example":
        per_row_BS = 1 / (examples_S * tokens_per_segment(segment_ids_BL).clamp(min=1))
    elif normalize == "batch":
        per_row_BS = (1 / tokens_S).expand(segment_ids_BL.shape[0], -1)
    else:
        raise ValueError(f"normalize is {normalize!r}; known: {', '.join(NORMALIZE)}")
    # Python numbers as factors, because a tensor of them would wait for the device.
    per_row_BS = torch.stack([think * per_row_BS[:, 0], answer * per_row_BS[:, 1]], dim=1)
    # Column 0 serves the tokens of no segment.
    table_BS1 = torch.cat([per_row_BS.new_zeros(len(per_row_BS), 1), per_row_BS], dim=1)
    return table_BS1.gather(1, segment_ids_BL)


class TokenCounts(NamedTuple):
    """Tokens of a micro-batch: all that are supervised, and those of them with a nonzero weight."""

    supervised: int
    weighted: int


def count_weighted_tokens(supervised_S: Sequence[int], think: float, answer: float, normalize: str) -> TokenCounts:
    """The counts of a micro-batch with `supervised_S` tokens of each segment, under `token_weights`."""
    shares = (1.0, 1.0) if normalize == "token" else (think, answer)
    weighted = sum(n for n, share in zip(supervised_S, shares, strict=True) if share)
    return TokenCounts(sum(supervised_S), weighted)
