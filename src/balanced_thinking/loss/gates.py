"""Gates: factors on a token's loss that follow from its prediction, without gradient.

Shapes: C tokens, V vocabulary, K most likely tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_TOP = 20  # tokens whose entropy EAFT's published code takes for that of the prediction
_FULL_ENTROPY = 3.0  # nats, that code's divisor: about ln(20), the largest entropy of 20 tokens


class Gate(NamedTuple):
    """A gate (`TOKEN_GATES`) and the tokens that it is for; None for all."""

    kind: str
    gated_C: Tensor | None = None

    def select(self, rows_C: Tensor | slice) -> Gate:
        """The gate of these tokens."""
        return self if self.gated_C is None else self._replace(gated_C=self.gated_C[rows_C])

    def factors(self, nll_C: Tensor, top_C: Tensor | None) -> Tensor:
        """(C,): the factor of every token, from its nll, or for EAFT from its `entropy_of_top`."""
        factors_C = torch.exp(-nll_C) if top_C is None else top_C / _FULL_ENTROPY
        return factors_C if self.gated_C is None else torch.where(self.gated_C, factors_C, 1.0)


def top_logits(logits_CV: Tensor, logit_scale: float = 1.0) -> Tensor:
    """(C, K): the logits of each token's most likely predictions, which are the lowest ones under a negative scale."""
    return logits_CV.topk(min(_TOP, logits_CV.shape[1]), dim=1, largest=logit_scale >= 0).values


def entropy_of_top(gate: Gate | None, logits_CV: Tensor) -> Tensor | None:
    """(C,) nats: the entropy among each token's 20 most likely predictions, as if there were no others.

    None where the gate does not need it.
    """
    if gate is None or gate.kind != "eaft":
        return None
    return torch.special.entr(top_logits(logits_CV).softmax(1)).sum(1)
