"""The specification of the weighted head: plain eager torch, every line of the definition and nothing else.

Shapes: T tokens, N supervised tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from balanced_thinking.loss.gates import Gate, entropy_of_top

IGNORE_INDEX = -100


class HeadOptions(NamedTuple):
    """Options of one call; `weighted_linear_cross_entropy` explains them."""

    softcap: float | None = None
    logit_scale: float = 1.0
    entropy: bool = False
    counts: tuple[int, int] | None = None
    gate: Gate | None = None


class LossParts(NamedTuple):
    """What every implementation returns; `entropy_T` is None unless it was asked for."""

    loss: Tensor
    nll_T: Tensor
    correct_T: Tensor
    entropy_T: Tensor | None


def reference_loss(
    hidden_TD: Tensor,
    head_VD: Tensor,
    bias_V: Tensor | None,
    labels_T: Tensor,
    weights_T: Tensor,
    options: HeadOptions,
) -> LossParts:
    """The parts as `weighted_linear_cross_entropy` defines them; autograd computes the gradients."""
    supervised_T = labels_T != IGNORE_INDEX
    targets_N = labels_T[supervised_T]
    bias_V = None if bias_V is None else bias_V.to(hidden_TD.dtype)
    logits_NV = F.linear(hidden_TD[supervised_T], head_VD.to(hidden_TD.dtype), bias_V)
    logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32)) * options.logit_scale
    if options.softcap is not None:
        logits_NV = options.softcap * torch.tanh(logits_NV / options.softcap)
    nll_N = F.cross_entropy(logits_NV, targets_N, reduction="none")
    weights_N = weights_T[supervised_T].to(nll_N.dtype)
    if options.gate is not None:
        top_N = entropy_of_top(options.gate, logits_NV.detach())
        weights_N = weights_N * options.gate.select(supervised_T).factors(nll_N.detach(), top_N)
    loss = (nll_N * weights_N).sum()
    nll_T = nll_N.new_zeros(labels_T.shape).masked_scatter(supervised_T, nll_N.detach())
    correct_T = torch.zeros_like(supervised_T).masked_scatter(supervised_T, logits_NV.argmax(1) == targets_N)
    if not options.entropy:
        return LossParts(loss, nll_T, correct_T, None)
    entropy_N = torch.special.entr(logits_NV.detach().softmax(1)).sum(1)
    entropy_T = torch.zeros_like(nll_T).masked_scatter(supervised_T, entropy_N)
    return LossParts(loss, nll_T, correct_T, entropy_T)
