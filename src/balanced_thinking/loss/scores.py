"""What lies between the products of the chunked head, in plain torch: logits -> nll, top-1, entropy, gradient.

Shapes: C tokens of a chunk, B tokens of a block of a chunk, V vocabulary. A trailing underscore marks a function that
writes into its first argument.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from balanced_thinking.loss.chunks import at_least_float32, chunk_policy
from balanced_thinking.loss.gates import entropy_of_top
from balanced_thinking.loss.reference import HeadOptions


class TokenScores(NamedTuple):
    """Per token: nll (nats), whether the target is the top-1 token, and the entropy (nats) where it was asked for.

    `gate_C` are the gate's factors, where there is one. `factor_C` is what the gradient that was written still lacks,
    None where that is nothing.
    """

    nll_C: Tensor
    correct_C: Tensor
    entropy_C: Tensor | None
    gate_C: Tensor | None
    factor_C: Tensor | None = None


# (logits_CV, targets_C, scale_C or None, options) -> scores; see `score_in_torch_`. A gate is that of these tokens.
ScoreFunction = Callable[[Tensor, Tensor, Tensor | None, HeadOptions], TokenScores]


def score_in_torch_(logits_CV: Tensor, targets_C: Tensor, scale_C: Tensor | None, options: HeadOptions) -> TokenScores:
    """Score a chunk and overwrite its logits: with `scale_C` times the gradient of the nll where `scale_C` is given.

    A gate scales it once more. In float32 the scale and the gate are left to the caller as `factor_C`: on
    the narrow side of the products they cost nothing, here a pass over all logits.
    It works block by block, so that a block stays in the cache between its passes, and float32 copies of low-precision
    logits and the softcap's derivative stay small.
    """
    row_bytes = logits_CV.shape[1] * at_least_float32(logits_CV.dtype).itemsize
    rows = max(1, chunk_policy(logits_CV.device).block_bytes // row_bytes)
    parts = []
    for start in range(0, len(logits_CV), rows):
        block = slice(start, start + rows)
        scale_B = None if scale_C is None else scale_C[block]
        of_block = options if options.gate is None else options._replace(gate=options.gate.select(block))
        parts.append(_score_block_(logits_CV[block], targets_C[block], scale_B, of_block))
    nlls, corrects, entropies, gates, factors = zip(*parts, strict=True)
    return TokenScores(
        torch.cat(nlls),
        torch.cat(corrects),
        torch.cat(entropies) if options.entropy else None,
        None if options.gate is None else torch.cat(gates),
        None if scale_C is None or factors[0] is None else torch.cat(factors),
    )


def _score_block_(logits_BV: Tensor, targets_B: Tensor, scale_B: Tensor | None, options: HeadOptions) -> TokenScores:
    scores_BV = logits_BV.to(at_least_float32(logits_BV.dtype))  # the same memory, unless in low precision
    slope_BV = _scale_and_cap_(scores_BV, options.softcap, options.logit_scale)
    top_entropy_B = entropy_of_top(options.gate, scores_BV)
    top_B = scores_BV.amax(dim=1)  # several times as fast as `max`, which also says where
    gap_B = top_B - scores_BV.gather(1, targets_B[:, None]).squeeze(1)
    correct_B = _are_first_of_top(scores_BV, top_B, targets_B, gap_B)
    torch.softmax(scores_BV, dim=1, out=scores_BV)  # one fused pass; separate exp, sum and divide take 1.5x as long
    # The top probability is at least 1/V, so its logarithm is exact where that of the target's would underflow.
    nll_B = gap_B - scores_BV.amax(dim=1).log()
    entropy_B = torch.special.entr(scores_BV).sum(1) if options.entropy else None
    gate_B = None if options.gate is None else options.gate.factors(nll_B, top_entropy_B)
    if scale_B is None:
        return TokenScores(nll_B, correct_B, entropy_B, gate_B)
    factor_B = scale_B if gate_B is None else scale_B * gate_B
    scores_BV.scatter_(1, targets_B[:, None], scores_BV.gather(1, targets_B[:, None]) - 1.0)
    if slope_BV is not None:
        scores_BV.mul_(slope_BV)
    if scores_BV is logits_BV and scores_BV.dtype == torch.float32:
        return TokenScores(nll_B, correct_B, entropy_B, gate_B, factor_B)
    # In low precision before the gradient is rounded: a small weight would underflow on the narrow side.
    scores_BV.mul_(factor_B[:, None])
    if scores_BV is not logits_BV:
        logits_BV.copy_(scores_BV)
    return TokenScores(nll_B, correct_B, entropy_B, gate_B)


def _are_first_of_top(scores_BV: Tensor, top_B: Tensor, targets_B: Tensor, gap_B: Tensor) -> Tensor:
    """(B,) bool: whether the target has the largest score; of equal ones the first counts."""
    if scores_BV.device.type != "cpu":
        return scores_BV.argmax(dim=1) == targets_B  # without waiting for the device
    is_top_B = gap_B == 0
    rows_R = is_top_B.nonzero().squeeze(1)
    if len(rows_R):
        is_top_B[rows_R] = scores_BV[rows_R].argmax(dim=1) == targets_B[rows_R]
    return is_top_B


def _scale_and_cap_(scores_BV: Tensor, softcap: float | None, logit_scale: float) -> Tensor | None:
    """Scale and cap the scores in place; return the cap's derivative, or None without a cap."""
    if logit_scale != 1.0:
        scores_BV.mul_(logit_scale)
    if softcap is None:
        return None
    scores_BV.div_(softcap).tanh_()
    slope_BV = scores_BV.square().neg_().add_(1.0)
    scores_BV.mul_(softcap)
    return slope_BV
