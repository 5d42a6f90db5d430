"""The loss head: a weighted linear cross-entropy that never holds the full logits.

    out = weighted_linear_cross_entropy(hidden_TD, lm_head.weight, labels_T, weights_T)
    out.loss.backward()

Shapes: T tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from balanced_thinking.config.names import did_you_mean
from balanced_thinking.loss.chunked import chunked_loss
from balanced_thinking.loss.gates import Gate
from balanced_thinking.loss.reference import HeadOptions, LossParts, reference_loss
from balanced_thinking.loss.variants import TOKEN_GATES

__all__ = ["LossOutput", "LossOutputWithEntropy", "weighted_linear_cross_entropy"]

Implementation = Callable[[Tensor, Tensor, Tensor | None, Tensor, Tensor, HeadOptions], LossParts]


def _run_triton(*arguments: Any) -> LossParts:
    if find_spec("triton") is None:
        raise ValueError("impl is 'triton', but Triton is not installed; install it, or set impl='chunked'")
    from balanced_thinking.loss.triton import triton_loss

    return triton_loss(*arguments)


@cache
def _triton_works() -> bool:
    """Whether a first kernel runs. Triton needs a C compiler and Python's headers, which small containers lack."""
    if find_spec("triton") is None:
        return False
    logits, targets = torch.zeros(1, 2, device="cuda"), torch.zeros(1, dtype=torch.int64, device="cuda")
    try:
        from balanced_thinking.loss.triton import score_in_triton_

        score_in_triton_(logits, targets, None, HeadOptions())
    except Exception as error:  # its compiler may raise anything, and the chunked head does the same work
        warnings.warn(f"Triton is installed but does not run ({error}); head_impl=auto uses chunked", stacklevel=2)
        return False
    return True


def _run_fastest(hidden_TD: Tensor, *rest: Any) -> LossParts:
    """Triton on a GPU where it runs, else the chunked head."""
    on_triton = hidden_TD.is_cuda and hidden_TD.dtype != torch.float64 and _triton_works()
    return (_run_triton if on_triton else chunked_loss)(hidden_TD, *rest)


# A new implementation is one line here, and its name in `variants.HEAD_IMPLEMENTATIONS`.
IMPLEMENTATIONS: dict[str, Implementation] = {
    "auto": _run_fastest,
    "chunked": chunked_loss,
    "triton": _run_triton,
    "reference": reference_loss,
}


class LossOutput(NamedTuple):
    """What the head returns. `loss` has a gradient; the per-token fields are for metrics and have none."""

    loss: Tensor  # scalar, weighted sum, nats
    nll_T: Tensor
    correct_T: Tensor


class LossOutputWithEntropy(NamedTuple):
    """`LossOutput` with the entropy of each prediction."""

    loss: Tensor
    nll_T: Tensor
    correct_T: Tensor
    entropy_T: Tensor


def weighted_linear_cross_entropy(
    hidden_TD: Tensor,
    head_VD: Tensor,
    labels_T: Tensor,
    weights_T: Tensor,
    *,
    bias_V: Tensor | None = None,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    impl: str = "auto",
    entropy: bool = False,
    counts: tuple[int, int] | None = None,
    gate: str = "none",
    gated_T: Tensor | None = None,
) -> LossOutput | LossOutputWithEntropy:
    """Return sum_i weights_T[i] * nll_T[i] over the supervised tokens, with per-token metrics.

    The logits are `z = logit_scale * (hidden_TD @ head_VD.T + bias_V)`, then `softcap * tanh(z / softcap)` if a
    softcap is given. The sum is plain: denominators belong in the weights. Unsupervised tokens take no part in
    any product. A batch without a target gives zero, with gradients of zero.

    Args:
        hidden_TD: (T, D) floating point, last hidden states. The products run in its dtype, or in autocast's.
        head_VD: (V, D) floating point, the output embedding.
        labels_T: (T,) int64; `labels_T[i]` is the target of `hidden_TD[i]` (already shifted), -100 means unsupervised.
            Other values outside [0, V) are undefined: an index error on a CPU, an nll that is not a number on a GPU.
        weights_T: (T,) floating point, any sign, without gradient. A token of weight zero costs a forward only.
        bias_V: (V,) floating point, or None.
        softcap: bound of the logits, in nats, above 0 (Gemma's `final_logit_softcapping`), or None.
        logit_scale: factor on the logits, before the softcap.
        impl: one of
            "chunked": gradients are computed in the forward, and logits are held a chunk at a time. It gives first
            derivatives only, and one backward per call;
            "triton": the same, with one kernel between the products;
            "reference": eager, all supervised logits at once;
            "auto": "triton" on a GPU, else "chunked".
        entropy: whether to also return the entropy of each supervised token's prediction.
        counts: (supervised tokens, those of them with a nonzero weight), if the caller knows them on the host. Then
            nothing waits for a GPU, which checks them with an assertion of its own. "reference" ignores them.
        gate: a factor g_i on every term of the sum, computed from the token's prediction and without gradient:
            "none": 1;
            "dft": the probability of the target (arXiv:2508.05629);
            "eaft": the entropy among the 20 most likely tokens as if there were no others, in nats, divided by 3,
            about its largest value (arXiv:2601.02151, as in its published code).
        gated_T: (T,) bool, the tokens that the gate is for; None for all. The others have the factor 1.

    Returns:
        `LossOutput(loss, nll_T, correct_T)`, or with `entropy` `LossOutputWithEntropy(..., entropy_T)`. Loss, nll and
        entropy are in nats, in float32 (float64 for float64 inputs). The loss is differentiable in hidden, head and
        bias. Per-token values are zero for unsupervised tokens, and never include a weight or a gate.

    Raises:
        ValueError: unknown `impl`, or shapes, devices or options that do not fit together.
        TypeError: labels that are not int64, a mask that is not bool, or other tensors that are not floating point.
        RuntimeError: `counts` that do not match the labels and weights.
    """
    if impl not in IMPLEMENTATIONS:
        known = ", ".join(IMPLEMENTATIONS)
        raise ValueError(f"impl is {impl!r}{did_you_mean(impl, IMPLEMENTATIONS)}; expected one of {known}")
    tensors = {"hidden_TD": hidden_TD, "head_VD": head_VD, "labels_T": labels_T, "weights_T": weights_T}
    if bias_V is not None:
        tensors["bias_V"] = bias_V
    if gated_T is not None:
        tensors["gated_T"] = gated_T
    _check_dtypes_and_devices(tensors)
    _check_shapes(tensors)
    if weights_T.requires_grad:
        raise ValueError("weights_T requires grad, but the loss is not differentiable in it: pass weights_T.detach()")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"softcap is {softcap}: expected a number above 0, or None for no cap")
    if gate not in TOKEN_GATES:
        raise ValueError(f"gate is {gate!r}{did_you_mean(gate, TOKEN_GATES)}; expected one of {', '.join(TOKEN_GATES)}")
    gated = None if gate == "none" else Gate(gate, gated_T)
    options = HeadOptions(softcap, logit_scale, entropy, counts, gated)
    parts = IMPLEMENTATIONS[impl](hidden_TD, head_VD, bias_V, labels_T, weights_T, options)
    loss, nll_T, correct_T, entropy_T = parts
    if entropy_T is None:
        return LossOutput(loss, nll_T, correct_T)
    return LossOutputWithEntropy(loss, nll_T, correct_T, entropy_T)


_NOT_FLOATING = ("labels_T", "gated_T")


def _check_dtypes_and_devices(tensors: dict[str, Tensor]) -> None:
    """Reads metadata only, so that no value has to leave the device."""
    device = tensors["hidden_TD"].device
    for name, tensor in tensors.items():
        if name == "labels_T" and tensor.dtype != torch.int64:
            raise TypeError(
                f"labels_T is {tensor.dtype}: expected torch.int64 token ids; convert them with labels.long()"
            )
        if name == "gated_T" and tensor.dtype != torch.bool:
            raise TypeError(f"gated_T is {tensor.dtype}: expected torch.bool; convert it with gated != 0")
        if name not in _NOT_FLOATING and not tensor.is_floating_point():
            raise TypeError(f"{name} is {tensor.dtype}: expected a floating-point dtype; convert it with .float()")
        if tensor.device != device:
            raise ValueError(f"{name} is on {tensor.device}: expected {device}, where hidden_TD is; move it there")


def _check_shapes(tensors: dict[str, Tensor]) -> None:
    for name in ("hidden_TD", "head_VD"):
        if tensors[name].dim() != 2:
            found = tuple(tensors[name].shape)
            raise ValueError(f"{name} has shape {found}: expected 2 axes; flatten batch and time first")
    (tokens, width), (vocabulary, _) = tensors["hidden_TD"].shape, tensors["head_VD"].shape
    expected = {"head_VD": (vocabulary, width), "labels_T": (tokens,), "weights_T": (tokens,), "bias_V": (vocabulary,)}
    expected["gated_T"] = (tokens,)
    for name, shape in expected.items():
        if name in tensors and tuple(tensors[name].shape) != shape:
            against = "head_VD" if name == "bias_V" else "hidden_TD"
            found, other = tuple(tensors[name].shape), tuple(tensors[against].shape)
            raise ValueError(f"{name} has shape {found}: expected {shape} to fit {against} of shape {other}")
