"""The weighted head in plain torch: gradients are computed in the forward, a chunk of supervised tokens at a time.

The weights are known in advance, so the forward can turn each chunk of logits into its gradient at once. That takes
three products of size V, where forward, recomputation and backward would take four. A frozen head or frozen hidden
states take two products; evaluation and tokens of weight zero take one; unsupervised tokens take none.

Shapes: T tokens, N supervised tokens, C tokens of a chunk, D hidden size, V vocabulary.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from balanced_thinking.cpu.pages import new_buffer
from balanced_thinking.cpu.products import fast_matmuls
from balanced_thinking.loss.chunks import at_least_float32, autocast_dtype, cut_into_chunks
from balanced_thinking.loss.reference import IGNORE_INDEX, HeadOptions, LossParts
from balanced_thinking.loss.scores import ScoreFunction, score_in_torch_

_HALF_RANGE = 256.0  # largest coefficient of a float16 gradient: far from overflow, small probabilities survive


def chunked_loss(
    hidden_TD: Tensor,
    head_VD: Tensor,
    bias_V: Tensor | None,
    labels_T: Tensor,
    weights_T: Tensor,
    options: HeadOptions,
    score_: ScoreFunction = score_in_torch_,
) -> LossParts:
    """The parts as `weighted_linear_cross_entropy` defines them; `score_` does the work between the products."""
    call = _CallOptions(options, score_, torch.is_grad_enabled())
    with fast_matmuls() if hidden_TD.device.type == "cpu" else nullcontext():
        return LossParts(*_ChunkedHead.apply(hidden_TD, head_VD, bias_V, labels_T, weights_T, call))


class _CallOptions(NamedTuple):
    options: HeadOptions
    score_: ScoreFunction
    wants_grad: bool  # inside the Function gradient mode is always off, and needs_input_grad ignores it


class _ChunkedHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_TD: Tensor,
        head_VD: Tensor,
        bias_V: Tensor | None,
        labels_T: Tensor,
        weights_T: Tensor,
        call: _CallOptions,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        dtype, options = _matmul_dtype(hidden_TD), call.options
        needs = [call.wants_grad and need for need in ctx.needs_input_grad[:3]]
        rows_N, weighted = _order_supervised_by_weight(labels_T, weights_T, options.counts)
        targets_N, weights_N = labels_T[rows_N], weights_T[rows_N].to(at_least_float32(dtype))
        chunks = cut_into_chunks(weighted if any(needs) else 0, len(rows_N), head_VD, dtype)
        grads = _Gradients((hidden_TD, head_VD, bias_V), needs, weights_N, dtype, sum(c.has_grad for c in chunks))
        nll_N, correct_N = torch.empty_like(weights_N), torch.empty_like(targets_N, dtype=torch.bool)
        entropy_N, gate_N = torch.empty_like(weights_N), torch.ones_like(weights_N)
        buffer_CV = new_buffer(head_VD, (max((c.rows for c in chunks), default=0), len(head_VD)), dtype)
        weight_VD, offset_V = head_VD.to(dtype), None if bias_V is None else bias_V.to(dtype)
        for chunk in chunks:
            span = slice(chunk.start, chunk.start + chunk.rows)
            hidden_CD = hidden_TD.index_select(0, rows_N[span]).to(dtype)
            logits_CV = _compute_logits(hidden_CD, weight_VD, offset_V, out=buffer_CV[: chunk.rows])
            scale_C = grads.rescale_weights(weights_N[span]) * options.logit_scale if chunk.has_grad else None
            of_chunk = options._replace(gate=options.gate and options.gate.select(rows_N[span]))
            scores = call.score_(logits_CV, targets_N[span], scale_C, of_chunk)
            nll_N[span], correct_N[span] = scores.nll_C, scores.correct_C
            if scores.entropy_C is not None:
                entropy_N[span] = scores.entropy_C
            if scores.gate_C is not None:
                gate_N[span] = scores.gate_C
            if chunk.has_grad:
                grads.add_chunk(rows_N[span], logits_CV, hidden_CD, weight_VD, scores.factor_C)
        ctx.grads = grads
        nll_T, correct_T, entropy_T = (
            x_N.new_zeros(len(labels_T)).index_copy_(0, rows_N, x_N) for x_N in (nll_N, correct_N, entropy_N)
        )
        ctx.mark_non_differentiable(nll_T, correct_T, entropy_T)
        loss = (nll_N * weights_N * gate_N if options.gate else nll_N * weights_N).sum()
        return loss, nll_T, correct_T, entropy_T if options.entropy else None

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.grads is None:
            raise RuntimeError(
                "backward ran twice through one loss, which keeps its gradients for one backward only: "
                "call weighted_linear_cross_entropy again, or use impl='reference'"
            )
        # While ctx holds the head's gradient, AccumulateGrad clones it instead of taking it over.
        grads, ctx.grads = ctx.grads, None
        return (*grads.scale_by(upstream), None, None, None)


class _Gradients:
    """The gradients of one call, added up chunk by chunk; None where none is needed."""

    def __init__(
        self,
        inputs: tuple[Tensor, Tensor, Tensor | None],
        needs: list[bool],
        weights_N: Tensor,
        dtype: torch.dtype,
        chunks: int,
    ) -> None:
        half, wide = dtype == torch.float16, at_least_float32(dtype)
        # In float16 weights like 1e-6 underflow, and a loss scaler's factor comes too late. So their size is divided
        # out here and multiplied in again in `scale_by`.
        self.unit = weights_N.abs().amax() / _HALF_RANGE if half and chunks else None
        self.dtypes = [None if tensor is None else tensor.dtype for tensor in inputs]
        hidden_dtype = wide if half else inputs[0].dtype
        # With one chunk there is no sum, but a float32 head (under autocast) still gets the precision of the product.
        head_dtype = wide if half or chunks > 1 or inputs[1].dtype == wide else dtype
        self.hidden_TD, self.head_VD, self.bias_V = (
            new_buffer(tensor, tensor.shape, grad_dtype) if tensor is not None and need else None
            for tensor, need, grad_dtype in zip(inputs, needs, (hidden_dtype, head_dtype, wide), strict=True)
        )
        # The head's gradient is large: the first chunk writes it, instead of adding to zeros.
        for grad in (self.hidden_TD, self.bias_V, None if chunks else self.head_VD):
            if grad is not None:
                grad.zero_()
        self.begun = False

    def rescale_weights(self, weights_C: Tensor) -> Tensor:
        """The weights in a range that float16 can hold; unchanged in other dtypes."""
        return weights_C if self.unit is None else weights_C / self.unit

    def add_chunk(
        self, rows_C: Tensor, grad_CV: Tensor, hidden_CD: Tensor, head_VD: Tensor, factor_C: Tensor | None
    ) -> None:
        """Add what the gradient of a chunk's logits contributes; `factor_C` is what that gradient still lacks."""
        if self.hidden_TD is not None:
            found_CD = torch.mm(grad_CV, head_VD)
            found_CD = found_CD if factor_C is None else found_CD.mul_(factor_C[:, None])
            self.hidden_TD.index_copy_(0, rows_C, found_CD.to(self.hidden_TD.dtype))
        if self.head_VD is not None:
            scaled_CD = hidden_CD if factor_C is None else hidden_CD * factor_C[:, None]
            _add_matmul_(self.head_VD, grad_CV.t(), scaled_CD, beta=float(self.begun))
        if self.bias_V is not None:
            self.bias_V += grad_CV.sum(0, dtype=self.bias_V.dtype) if factor_C is None else grad_CV.t() @ factor_C
        self.begun = True

    def scale_by(self, upstream: Tensor) -> list[Tensor | None]:
        """The gradients times that of the loss, each in the dtype of its input."""
        factor = upstream if self.unit is None else upstream * self.unit
        # Reading a scalar is free on a CPU and a synchronisation elsewhere.
        scales = factor.device.type != "cpu" or factor.item() != 1.0
        grads = (self.hidden_TD, self.head_VD, self.bias_V)
        return [
            None
            if grad is None or dtype is None
            else _scale_gradient_(grad, factor, dtype)
            if scales
            else grad.to(dtype)
            for grad, dtype in zip(grads, self.dtypes, strict=True)
        ]


def _scale_gradient_(grad: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """`grad` times `factor` in one pass, in place where it has the dtype already."""
    out = grad if grad.dtype == dtype else torch.empty_like(grad, dtype=dtype)
    return torch.mul(grad, factor, out=out)


def _order_supervised_by_weight(
    labels_T: Tensor, weights_T: Tensor, counts: tuple[int, int] | None
) -> tuple[Tensor, int]:
    """The supervised rows, those of a nonzero weight first, and how many have one."""
    supervised_T = labels_T != IGNORE_INDEX
    weighted_T = supervised_T & (weights_T != 0)
    # 0: has a weight; 1: supervised, of weight 0; 2: not supervised. Stable, so that rows keep their order.
    order_T = torch.argsort((~supervised_T).to(torch.uint8) + (~weighted_T).to(torch.uint8), stable=True)
    found = supervised_T.sum(), weighted_T.sum()
    if counts is None:
        # The only synchronisation of the forward: all later sizes depend on it.
        supervised, weighted = torch.stack(found).tolist()
    else:
        supervised, weighted = counts
        right = (found[0] == supervised) & (found[1] == weighted)
        torch._assert_async(
            right,
            f"counts is ({supervised}, {weighted}), but labels_T and weights_T have other numbers of supervised and "
            "of weighted tokens; count them again, or leave counts out",
        )
    return order_T[:supervised], weighted


def _compute_logits(hidden_CD: Tensor, head_VD: Tensor, bias_V: Tensor | None, out: Tensor) -> Tensor:
    if bias_V is None:
        return torch.mm(hidden_CD, head_VD.t(), out=out)
    return torch.addmm(bias_V, hidden_CD, head_VD.t(), out=out)


def _add_matmul_(total_MN: Tensor, left_MK: Tensor, right_KN: Tensor, beta: float) -> None:
    """`beta` times the total plus left @ right, without rounding the product to the lower precision of its factors.

    With `beta` 0 the total may be uninitialised.
    """
    if total_MN.dtype == left_MK.dtype:
        total_MN.addmm_(left_MK, right_KN, beta=beta)
    elif total_MN.device.type in ("cuda", "meta"):
        torch.addmm(total_MN, left_MK, right_KN, out_dtype=total_MN.dtype, beta=beta, out=total_MN)
    else:
        total_MN.addmm_(left_MK.to(total_MN.dtype), right_KN.to(total_MN.dtype), beta=beta)


def _matmul_dtype(hidden_TD: Tensor) -> torch.dtype:
    """Autocast's dtype where it applies (never to float64), else that of the hidden states."""
    lower = autocast_dtype(hidden_TD.device)
    return hidden_TD.dtype if lower is None or hidden_TD.dtype == torch.float64 else lower
