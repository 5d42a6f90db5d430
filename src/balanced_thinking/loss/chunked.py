"""The weighted head in plain torch: gradients are made in the forward, a chunk of supervised tokens at a time.

The weights are known beforehand, so the forward can turn each chunk of logits into its gradient while it has it:
three products of size V instead of the four of forward, recomputation and backward. A frozen head or frozen hidden
states cost two, evaluation and tokens of weight zero cost one, unsupervised tokens none.

Shapes: T tokens, N supervised tokens, C tokens of a chunk, B tokens of a block of a chunk, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from balanced_thinking.cpu.products import fast_products
from balanced_thinking.loss.reference import IGNORE_INDEX, Options

_HALF_RANGE = 256.0  # largest coefficient of a float16 gradient: far from overflow, small probabilities survive
# (logits_CV, targets_C, scale_C or None, options) -> (nll_C, correct_C, entropy_C or None); see `score_in_torch_`.
Score = Callable[[Tensor, Tensor, Tensor | None, Options], tuple[Tensor, Tensor, Tensor | None]]


class ChunkPolicy(NamedTuple):
    """How many rows of logits are held at once."""

    chunk_bytes: int  # for the products
    min_rows: int  # fewer rows waste a product, whatever the bytes
    block_bytes: int  # for the element-wise work: bounds float32 copies and the softcap's derivative


CPU_POLICY = ChunkPolicy(chunk_bytes=160 * 2**20, min_rows=64, block_bytes=64 * 2**20)
# Each chunk but the first reads and writes the head's gradient in float32 once more, so that a large card takes more.
_CHUNK_SHARE = 32  # of a card's memory, as a divisor
GPU_POLICY = ChunkPolicy(chunk_bytes=2 * 2**30, min_rows=2048, block_bytes=256 * 2**20)


def chunked_loss(
    hidden_TD: Tensor,
    head_VD: Tensor,
    bias_V: Tensor | None,
    labels_T: Tensor,
    weights_T: Tensor,
    options: Options,
    score_: Score | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return (loss, nll_T, correct_T, entropy_T or None) as `weighted_linear_cross_entropy` defines them.

    `score_` takes the place of `score_in_torch_`, which does the work between the products.
    """
    call = _Call(options, score_ or score_in_torch_, torch.is_grad_enabled())
    with fast_products() if hidden_TD.device.type == "cpu" else nullcontext():
        return _ChunkedHead.apply(hidden_TD, head_VD, bias_V, labels_T, weights_T, call)


class _Call(NamedTuple):
    options: Options
    score_: Score
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
        call: _Call,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        dtype, options = _product_dtype(hidden_TD), call.options
        needs = [call.wants_grad and need for need in ctx.needs_input_grad[:3]]
        rows_N, weighted = _compact(labels_T, weights_T, options.counts)
        targets_N, weights_N = labels_T[rows_N], weights_T[rows_N].to(_widen(dtype))
        chunks = _chunks(weighted if any(needs) else 0, len(rows_N), head_VD, dtype)
        grads = _Gradients((hidden_TD, head_VD, bias_V), needs, weights_N, dtype, sum(c.has_grad for c in chunks))
        nll_N, correct_N = torch.empty_like(weights_N), torch.empty_like(targets_N, dtype=torch.bool)
        entropy_N = torch.empty_like(weights_N)
        buffer_CV = head_VD.new_empty(max((c.rows for c in chunks), default=0), len(head_VD), dtype=dtype)
        weight_VD, offset_V = head_VD.to(dtype), None if bias_V is None else bias_V.to(dtype)
        for chunk in chunks:
            span = slice(chunk.start, chunk.start + chunk.rows)
            hidden_CD = hidden_TD.index_select(0, rows_N[span]).to(dtype)
            logits_CV = _project(hidden_CD, weight_VD, offset_V, out=buffer_CV[: chunk.rows])
            scale_C = grads.coefficients(weights_N[span]) * options.logit_scale if chunk.has_grad else None
            nll_N[span], correct_N[span], entropy_C = call.score_(logits_CV, targets_N[span], scale_C, options)
            if entropy_C is not None:
                entropy_N[span] = entropy_C
            if chunk.has_grad:
                grads.add(rows_N[span], logits_CV, hidden_CD, weight_VD)
        ctx.grads = grads
        nll_T, correct_T, entropy_T = (
            x_N.new_zeros(len(labels_T)).index_copy_(0, rows_N, x_N) for x_N in (nll_N, correct_N, entropy_N)
        )
        ctx.mark_non_differentiable(nll_T, correct_T, entropy_T)
        return (nll_N * weights_N).sum(), nll_T, correct_T, entropy_T if options.entropy else None

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.grads is None:
            raise RuntimeError(
                "backward ran twice through one loss, whose gradients are handed out once: "
                "call weighted_linear_cross_entropy again, or use impl='reference'"
            )
        # While ctx holds the head's gradient, AccumulateGrad clones it instead of taking it over.
        grads, ctx.grads = ctx.grads, None
        return (*grads.release(upstream), None, None, None)


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
        half, wide = dtype == torch.float16, _widen(dtype)
        # In float16 weights like 1e-6 underflow, and a loss scaler's factor comes too late: take their size out first.
        self.unit = weights_N.abs().amax() / _HALF_RANGE if half and chunks else None
        self.dtypes = [None if tensor is None else tensor.dtype for tensor in inputs]
        hidden_dtype = wide if half else inputs[0].dtype
        # One chunk adds up nothing, but a head in float32 (under autocast) is owed what the product knows.
        head_dtype = wide if half or chunks > 1 or inputs[1].dtype == wide else dtype
        self.hidden_TD, self.head_VD, self.bias_V = (
            torch.empty_like(tensor, dtype=grad_dtype) if tensor is not None and need else None
            for tensor, need, grad_dtype in zip(inputs, needs, (hidden_dtype, head_dtype, wide), strict=True)
        )
        # The head's is the large one: the first chunk writes it, instead of adding to zeros.
        for grad in (self.hidden_TD, self.bias_V, None if chunks else self.head_VD):
            if grad is not None:
                grad.zero_()
        self.begun = False

    def coefficients(self, weights_C: Tensor) -> Tensor:
        return weights_C if self.unit is None else weights_C / self.unit

    def add(self, rows_C: Tensor, grad_CV: Tensor, hidden_CD: Tensor, head_VD: Tensor) -> None:
        if self.hidden_TD is not None:
            self.hidden_TD.index_copy_(0, rows_C, torch.mm(grad_CV, head_VD).to(self.hidden_TD.dtype))
        if self.head_VD is not None:
            _add_product_(self.head_VD, grad_CV.t(), hidden_CD, beta=float(self.begun))
        if self.bias_V is not None:
            self.bias_V += grad_CV.sum(0, dtype=self.bias_V.dtype)
        self.begun = True

    def release(self, upstream: Tensor) -> list[Tensor | None]:
        factor = upstream if self.unit is None else upstream * self.unit
        # Reading a scalar is free on a CPU and a synchronisation elsewhere.
        scales = factor.device.type != "cpu" or factor.item() != 1.0
        grads = (self.hidden_TD, self.head_VD, self.bias_V)
        return [
            None if grad is None or dtype is None else _scaled_(grad, factor, dtype) if scales else grad.to(dtype)
            for grad, dtype in zip(grads, self.dtypes, strict=True)
        ]


def _scaled_(grad: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """`grad` times `factor` in one pass, in place where it has the dtype already."""
    out = grad if grad.dtype == dtype else torch.empty_like(grad, dtype=dtype)
    return torch.mul(grad, factor, out=out)


class _Chunk(NamedTuple):
    start: int
    rows: int
    has_grad: bool


def _chunks(weighted: int, supervised: int, head_VD: Tensor, dtype: torch.dtype) -> list[_Chunk]:
    """Cut the rows into chunks of nearly one size, first those that get a gradient, then those scored for metrics."""
    policy = _policy(head_VD.device)
    most = max(policy.min_rows, policy.chunk_bytes // (len(head_VD) * dtype.itemsize))
    groups = ((0, weighted, True), (weighted, supervised, False))
    return [_Chunk(start, rows, grad) for first, last, grad in groups for start, rows in _balanced(first, last, most)]


def _balanced(first: int, last: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield (start, rows) over [first, last), at most `most` rows each, sizes differing by one at the most."""
    count = -(-(last - first) // most)
    edges = [first + (last - first) * i // count for i in range(count + 1)] if count else []
    return ((start, stop - start) for start, stop in pairwise(edges))


def _compact(labels_T: Tensor, weights_T: Tensor, counts: tuple[int, int] | None) -> tuple[Tensor, int]:
    """Return the supervised rows, those with a weight first, and how many have one."""
    supervised_T = labels_T != IGNORE_INDEX
    weighted_T = supervised_T & (weights_T != 0)
    order_T = torch.argsort((~supervised_T).to(torch.uint8) + (~weighted_T).to(torch.uint8), stable=True)
    found = supervised_T.sum(), weighted_T.sum()
    if counts is None:
        # The only synchronisation of the forward: the sizes of everything after it.
        supervised, weighted = torch.stack(found).tolist()
    else:
        supervised, weighted = counts
        right = (found[0] == supervised) & (found[1] == weighted)
        torch._assert_async(right, f"counts is {counts}, which are not those of labels_T and weights_T")
    return order_T[:supervised], weighted


def _project(hidden_CD: Tensor, head_VD: Tensor, bias_V: Tensor | None, out: Tensor) -> Tensor:
    if bias_V is None:
        return torch.mm(hidden_CD, head_VD.t(), out=out)
    return torch.addmm(bias_V, hidden_CD, head_VD.t(), out=out)


def score_in_torch_(
    logits_CV: Tensor, targets_C: Tensor, scale_C: Tensor | None, options: Options
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return (nll_C, correct_C, entropy_C or None); overwrite the logits, with `scale_C` times the gradient of the nll
    where given.

    Block by block, so that float32 copies of low-precision logits and the softcap's derivative stay small. Blocks that
    fit a cache are no faster: each pass is a barrier of the thread pool, dear on a busy machine.
    """
    row_bytes = logits_CV.shape[1] * _widen(logits_CV.dtype).itemsize
    rows = max(1, _policy(logits_CV.device).block_bytes // row_bytes)
    parts = []
    for start in range(0, len(logits_CV), rows):
        block = slice(start, start + rows)
        scale_B = None if scale_C is None else scale_C[block]
        parts.append(_score_block_(logits_CV[block], targets_C[block], scale_B, options))
    nlls, corrects, entropies = zip(*parts, strict=True)
    return torch.cat(nlls), torch.cat(corrects), torch.cat(entropies) if options.entropy else None


def _score_block_(
    logits_BV: Tensor, targets_B: Tensor, scale_B: Tensor | None, options: Options
) -> tuple[Tensor, Tensor, Tensor | None]:
    scores_BV = logits_BV.to(_widen(logits_BV.dtype))  # the same memory unless in low precision
    slope_BV = _cap_(scores_BV, options.softcap, options.logit_scale)
    top_B, argmax_B = scores_BV.max(dim=1)
    gap_B = top_B - scores_BV.gather(1, targets_B[:, None]).squeeze(1)
    torch.softmax(scores_BV, dim=1, out=scores_BV)  # one fused pass; exp, sum and divide apart cost half as much again
    # The top probability is at least 1/V, so its logarithm is exact where that of the target's would underflow.
    nll_B = gap_B - scores_BV.gather(1, argmax_B[:, None]).squeeze(1).log()
    entropy_B = torch.special.entr(scores_BV).sum(1) if options.entropy else None
    if scale_B is not None:
        scores_BV.scatter_(1, targets_B[:, None], scores_BV.gather(1, targets_B[:, None]) - 1.0)
        scores_BV.mul_(scale_B[:, None])
        if slope_BV is not None:
            scores_BV.mul_(slope_BV)
        if scores_BV is not logits_BV:
            logits_BV.copy_(scores_BV)
    return nll_B, argmax_B == targets_B, entropy_B


def _cap_(scores_BV: Tensor, softcap: float | None, logit_scale: float) -> Tensor | None:
    """Scale and cap the scores in place; return the cap's derivative, or None without a cap."""
    if logit_scale != 1.0:
        scores_BV.mul_(logit_scale)
    if softcap is None:
        return None
    scores_BV.div_(softcap).tanh_()
    slope_BV = scores_BV.square().neg_().add_(1.0)
    scores_BV.mul_(softcap)
    return slope_BV


def _add_product_(total_MN: Tensor, left_MK: Tensor, right_KN: Tensor, beta: float) -> None:
    """`beta` times the total (which 0 lets be uninitialised) plus left @ right, not rounded to the factors' lower
    precision first."""
    if total_MN.dtype == left_MK.dtype:
        total_MN.addmm_(left_MK, right_KN, beta=beta)
    elif total_MN.device.type == "cuda":
        torch.addmm(total_MN, left_MK, right_KN, out_dtype=total_MN.dtype, beta=beta, out=total_MN)
    else:
        total_MN.addmm_(left_MK.to(total_MN.dtype), right_KN.to(total_MN.dtype), beta=beta)


def _policy(device: torch.device) -> ChunkPolicy:
    if device.type == "cpu":
        return CPU_POLICY
    if device.type != "cuda":
        return GPU_POLICY
    share = torch.cuda.get_device_properties(device).total_memory // _CHUNK_SHARE
    return GPU_POLICY._replace(chunk_bytes=max(GPU_POLICY.chunk_bytes, share))


def _product_dtype(hidden_TD: Tensor) -> torch.dtype:
    """Autocast's dtype where it applies (never to float64), else that of the hidden states."""
    device = hidden_TD.device.type
    if torch.is_autocast_enabled(device) and hidden_TD.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return hidden_TD.dtype


def _widen(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
