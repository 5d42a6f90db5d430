"""The weighted head on a GPU: the chunked head with one kernel for everything between its products.

Each program of the kernel handles one row of logits. It reads the row once, online, for the maximum, the sum of
exponentials and the top-1 token. Where a gradient is needed, it reads the row again and writes the gradient in place.
The weight is applied in float32, before the gradient is rounded to the dtype of the products.

Shapes: T tokens, C tokens of a chunk, B logits of a block, D hidden size, V vocabulary.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from balanced_thinking.loss.chunked import chunked_loss
from balanced_thinking.loss.gates import entropy_of_top, top_logits
from balanced_thinking.loss.reference import HeadOptions, LossParts
from balanced_thinking.loss.scores import TokenScores

_BLOCK = 4096  # logits that a program holds in registers; with twice as many, a softcap makes ptxas spill
_WARPS = 8


@triton.jit
def _cap_logits(z, softcap, SOFTCAP: tl.constexpr):
    if SOFTCAP:
        # tanh by exponentials of arguments that are never positive: exact to rounding, no overflow.
        shrunk = tl.exp(-2.0 * tl.abs(z / softcap))
        size = softcap * (1.0 - shrunk) / (1.0 + shrunk)
        z = tl.where(z < 0.0, -size, size)
    return z


@triton.jit
def _score_row(
    logits_CV,
    row_stride,
    targets_C,
    scale_C,
    nll_C,
    correct_C,
    entropy_C,
    V,
    logit_scale,
    softcap,
    HAS_GRAD: tl.constexpr,
    SOFTCAP: tl.constexpr,
    ENTROPY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    logits_V = logits_CV + row * row_stride
    target = tl.load(targets_C + row)
    # A label outside of the vocabulary gets an nll of NaN. This read comes before any program writes a gradient.
    known = (target >= 0) & (target < V)
    aim = _cap_logits(
        tl.load(logits_V + target, mask=known, other=float("nan")).to(tl.float32) * logit_scale, softcap, SOFTCAP
    )

    top, total, argmax = float("-inf"), 0.0, 0
    mass = 0.0  # the sum of exp(z - top) * (z - top) below the top
    for start in range(0, V, BLOCK):
        at_B = start + tl.arange(0, BLOCK)
        inside_B = at_B < V
        raw_B = tl.load(logits_V + at_B, mask=inside_B, other=0.0).to(tl.float32)
        z_B = tl.where(inside_B, _cap_logits(raw_B * logit_scale, softcap, SOFTCAP), float("-inf"))
        highest, where = tl.max(z_B, 0, return_indices=True, return_indices_tie_break_left=True)
        argmax = tl.where(highest > top, start + where, argmax)  # on a tie the first one wins
        new_top = tl.maximum(top, highest)
        shrunk = tl.exp(top - new_top)
        exp_B = tl.exp(z_B - new_top)
        if ENTROPY:
            fall = tl.where(total > 0.0, top - new_top, 0.0)  # before the first block there is no top
            below_B = exp_B * tl.where(inside_B, z_B - new_top, 0.0)
            mass = shrunk * (mass + fall * total) + tl.sum(below_B, 0)
        total = total * shrunk + tl.sum(exp_B, 0)
        top = new_top

    tl.store(nll_C + row, tl.log(total) + (top - aim))
    tl.store(correct_C + row, argmax == target)
    if ENTROPY:
        tl.store(entropy_C + row, tl.log(total) - mass / total)

    if HAS_GRAD:
        scale = tl.load(scale_C + row).to(tl.float32)
        for start in range(0, V, BLOCK):
            at_B = start + tl.arange(0, BLOCK)
            inside_B = at_B < V
            raw_B = tl.load(logits_V + at_B, mask=inside_B, other=0.0).to(tl.float32)
            z_B = _cap_logits(raw_B * logit_scale, softcap, SOFTCAP)
            grad_B = scale * (tl.exp(z_B - top) / total - tl.where(at_B == target, 1.0, 0.0))
            if SOFTCAP:
                share_B = z_B / softcap
                grad_B *= 1.0 - share_B * share_B
            tl.store(logits_V + at_B, grad_B.to(logits_CV.dtype.element_ty), mask=inside_B)


def triton_loss(hidden_TD: Tensor, *rest: Any) -> LossParts:
    """The parts as `weighted_linear_cross_entropy` defines them.

    Raises TypeError for float64, and ValueError on a CPU unless Triton interprets its kernels.
    """
    if not hidden_TD.is_cuda and not triton.knobs.runtime.interpret:
        raise ValueError(f"impl='triton' needs a GPU, but hidden_TD is on {hidden_TD.device}: use impl='auto'")
    if hidden_TD.dtype == torch.float64:
        raise TypeError("impl='triton' accumulates in float32, but hidden_TD is torch.float64: use impl='chunked'")
    return partial(chunked_loss, score_=score_in_triton_)(hidden_TD, *rest)


def score_in_triton_(logits_CV: Tensor, targets_C: Tensor, scale_C: Tensor | None, options: HeadOptions) -> TokenScores:
    """As `score_in_torch_`: score a chunk, and overwrite its logits with the gradient where `scale_C` is given.

    A gate takes one more read of the logits before that: for the nll, or for the most likely tokens.
    """
    gate = options.gate
    if gate is None:
        return _launch_(logits_CV, targets_C, scale_C, options)
    top_C = entropy_of_top(gate, _most_likely_scores(logits_CV, options)) if gate.kind == "eaft" else None
    scores = _launch_(logits_CV, targets_C, None, options)
    gate_C = gate.factors(scores.nll_C, top_C)
    if scale_C is not None:
        _launch_(logits_CV, targets_C, scale_C * gate_C, options)
    return scores._replace(gate_C=gate_C)


def _most_likely_scores(logits_CV: Tensor, options: HeadOptions) -> Tensor:
    """(C, K) float32: the scaled and capped logits of each token's most likely predictions."""
    scores_CK = top_logits(logits_CV, options.logit_scale).float() * options.logit_scale
    return scores_CK if options.softcap is None else options.softcap * torch.tanh(scores_CK / options.softcap)


def _launch_(logits_CV: Tensor, targets_C: Tensor, scale_C: Tensor | None, options: HeadOptions) -> TokenScores:
    rows, vocabulary = logits_CV.shape
    nll_C = torch.empty(rows, dtype=torch.float32, device=logits_CV.device)
    correct_C = torch.empty(rows, dtype=torch.bool, device=logits_CV.device)
    entropy_C = torch.empty_like(nll_C) if options.entropy else None
    # Triton launches on the current device, whatever device the tensors are on.
    with torch.cuda.device(logits_CV.device) if logits_CV.is_cuda else nullcontext():
        _score_row[(rows,)](
            logits_CV,
            logits_CV.stride(0),
            targets_C,
            nll_C if scale_C is None else scale_C,  # a pointer that is never read
            nll_C,
            correct_C,
            nll_C if entropy_C is None else entropy_C,  # a pointer that is never written to
            vocabulary,
            options.logit_scale,
            1.0 if options.softcap is None else options.softcap,
            HAS_GRAD=scale_C is not None,
            SOFTCAP=options.softcap is not None,
            ENTROPY=options.entropy,
            BLOCK=min(_BLOCK, triton.next_power_of_2(vocabulary)),
            num_warps=_WARPS if vocabulary > _BLOCK // 2 else 4,
        )
    return TokenScores(nll_C, correct_C, entropy_C, None)
