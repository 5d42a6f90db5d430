"""Segment ids + segment weights + denominators -> one weight per token.

The weights of an optimizer step are divided by denominators that are counted over the complete global batch. So the
loss does not depend on how the batch was cut into micro-batches and ranks.

Shapes: B rows, L positions, S = 2 segments (think, answer), C = S + 1 with a last column of both together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from balanced_thinking.loss.variants import NORMALIZE, PLAIN_MEANS
from balanced_thinking.segments import ANSWER, THINK

SEGMENTS = (THINK, ANSWER)


def closing_tag_factors(marks_BL: torch.Tensor, factor: float) -> torch.Tensor:
    """(B, L) float32: `factor` for the tokens of closing tags, which `marks_BL` has nonzero; 1 for the other tokens."""
    return torch.ones_like(marks_BL, dtype=torch.float32).masked_fill(marks_BL != 0, factor)


def tokens_per_segment(segment_ids_BL: torch.Tensor, factors_BL: torch.Tensor | None = None) -> torch.Tensor:
    """Number of tokens of each segment in each row, (B, S) int64; with factors the sum of theirs, float64."""
    masks = [segment_ids_BL == segment for segment in SEGMENTS]
    if factors_BL is None:
        return torch.stack([mask.sum(1) for mask in masks], dim=1)
    wide = torch.float32 if factors_BL.device.type == "mps" else torch.float64
    return torch.stack([(factors_BL * mask).sum(1, dtype=wide) for mask in masks], dim=1)


def count_examples_and_tokens(segment_ids_BL: torch.Tensor, factors_BL: torch.Tensor | None = None) -> torch.Tensor:
    """(2, S + 1): how many examples have each segment, and how many tokens it has in all of them.

    The last column is of both segments together. With factors a token counts as much as its factor. These denominators
    add up over micro-batches and ranks. int64, with factors float64.
    """
    tokens_BS = tokens_per_segment(segment_ids_BL, factors_BL)
    tokens_BC = torch.cat([tokens_BS, tokens_BS.sum(1, keepdim=True)], dim=1)
    return torch.stack([(tokens_BC > 0).sum(0).to(tokens_BC.dtype), tokens_BC.sum(0)])


def token_weights(
    segment_ids_BL: torch.Tensor,
    counts_2C: torch.Tensor,
    think: float,
    answer: float,
    means: str,
    factors_BL: torch.Tensor | None = None,
) -> torch.Tensor:
    """(B, L) float32: the weight of every token's nll, zero where no segment owns the token.

    `counts_2C` is `count_examples_and_tokens` summed over the global batch. `means` is one of:

    - `example`: each segment's mean over an example, then over the examples that have the segment;
    - `batch`: each segment's mean over all its tokens;
    - `token`: one mean over all supervised tokens. This is plain SFT; it ignores the segment weights;
    - `example-mean`: one mean over an example's supervised tokens, then over the examples. It ignores them too.

    With `factors_BL` all means are weighted by them; the counts must then have been made with them.
    """
    examples_C, tokens_C = counts_2C.masked_fill(counts_2C == 0, 1).to(torch.float32)
    rows = segment_ids_BL.shape[0]
    tokens_BS = tokens_per_segment(segment_ids_BL, factors_BL)
    if means == "token":
        per_row_BS = (1 / tokens_C[-1]).expand(rows, len(SEGMENTS))
    elif means == "example-mean":
        tokens_B1 = tokens_BS.sum(1, keepdim=True)
        per_row_BS = (1 / (examples_C[-1] * _without_zeros(tokens_B1))).expand(rows, len(SEGMENTS))
    elif means == "example":
        per_row_BS = 1 / (examples_C[:-1] * _without_zeros(tokens_BS))
    elif means == "batch":
        per_row_BS = (1 / tokens_C[:-1]).expand(rows, -1)
    else:
        raise ValueError(f"means is {means!r}; known: {', '.join(dict.fromkeys((*NORMALIZE, *PLAIN_MEANS)))}")
    # Python numbers as factors, because a tensor of them would wait for the device.
    if means not in PLAIN_MEANS:
        per_row_BS = torch.stack([think * per_row_BS[:, 0], answer * per_row_BS[:, 1]], dim=1)
    # Column 0 serves the tokens of no segment.
    table_BC = torch.cat([per_row_BS.new_zeros(rows, 1), per_row_BS], dim=1)
    weights_BL = table_BC.gather(1, segment_ids_BL)
    return weights_BL if factors_BL is None else weights_BL * factors_BL


def _without_zeros(tokens: torch.Tensor) -> torch.Tensor:
    """Token counts as divisors, in float32."""
    return tokens.masked_fill(tokens == 0, 1).to(torch.float32)


class TokenCounts(NamedTuple):
    """Tokens of a micro-batch: all that are supervised, and those of them with a nonzero weight."""

    supervised: int
    weighted: int


def count_weighted_tokens(supervised_S: Sequence[int], think: float, answer: float, means: str) -> TokenCounts:
    """The counts of a micro-batch with `supervised_S` tokens of each segment, under `token_weights`."""
    shares = (1.0, 1.0) if means in PLAIN_MEANS else (think, answer)
    weighted = sum(n for n, share in zip(supervised_S, shares, strict=True) if share)
    return TokenCounts(sum(supervised_S), weighted)
