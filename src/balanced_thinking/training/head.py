"""The weighted loss inside the model's own forward, so that the hooks of DDP, FSDP and ZeRO-3 run as usual."""

from __future__ import annotations

import functools
import logging
import types
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.distributed.tensor import DTensor, Partial
from transformers import PreTrainedModel
from transformers.utils import ModelOutput
from trl.trainer.utils import maybe_gather_lm_head_ctx

from balanced_thinking.loss.linear_cross_entropy import weighted_linear_cross_entropy
from balanced_thinking.packing.probe import PROBE_ERRORS, evaluation_mode, gather_zero3_parameters

logger = logging.getLogger(__name__)
_PROBE_TOKENS = 8
_LEAST_ROUNDING = 1e-4  # nats
_LANES = 16  # numbers that are added at a time


@dataclass
class WeightedOutput(ModelOutput):
    """The weighted sum, and values per position of the shifted labels, (B, L - 1).

    These are the nll (nats), whether the target was the top-1 token, and where asked for the entropy (nats).
    """

    loss: torch.Tensor | None = None
    nll: torch.Tensor | None = None
    correct: torch.Tensor | None = None
    entropy: torch.Tensor | None = None


class FullPrecisionLoss:
    """Carries the token weights, (B, L - 1), to the head and its output back, around the wrappers of a model.

    FSDP2 casts every tensor that goes in or comes out to the lower precision of the products; it does not see these.
    `counts` and `gate` are those of `weighted_linear_cross_entropy`, and `gated_BL` is its mask.
    """

    def __init__(
        self,
        weights_BL: torch.Tensor,
        counts: tuple[int, int] | None = None,
        gate: str = "none",
        gated_BL: torch.Tensor | None = None,
    ) -> None:
        self.weights_BL, self.counts, self.gate, self.gated_BL = weights_BL, counts, gate, gated_BL
        self.found = WeightedOutput()

    def restore_precision(self, cast: torch.Tensor) -> torch.Tensor:
        """The loss as the head computed it, with the gradient of `cast`, the one that came out of the wrappers."""
        assert self.found.loss is not None
        return cast if cast.dtype == self.found.loss.dtype else cast + (self.found.loss - cast).detach()


def read_logit_scale(text_config: Any) -> float:
    """The factor on the logits, under the name that each architecture gives it; 1 where there is none."""
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        if (scale := getattr(text_config, name, None)) is not None:
            return float(scale)
    scaling = getattr(text_config, "logits_scaling", None)
    if scaling is None:
        return 1.0
    return float(scaling) if text_config.model_type == "hyperclovax" else 1.0 / float(scaling)


def read_softcap(text_config: Any) -> float | None:
    """The bound of the logits, `softcap * tanh(logits / softcap)`, under each architecture's name; None without one."""
    names = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
    return next((float(cap) for name in names if (cap := getattr(text_config, name, None))), None)


def gather_parameter(parameter: torch.Tensor) -> torch.Tensor:
    """The complete parameter where FSDP2 holds it in shards; any other parameter unchanged.

    FSDP2 gathers and averages in a module's own forward and backward, but the head's never run. A head that
    is an FSDP unit (in a vision model with untied weights) has its gradient averaged here, over all axes of the mesh.
    """
    if not isinstance(parameter, DTensor):
        return parameter
    return parameter.full_tensor(grad_placements=[Partial("avg")] * parameter.device_mesh.ndim)


def attach_weighted_head(model: PreTrainedModel, impl: str = "auto", entropy: bool = False) -> None:
    """Add the call `model(..., labels=(B, L), token_weights=(B, L - 1)) -> WeightedOutput` to `model`.

    `token_weights` may also be a `FullPrecisionLoss`. Calls without them are passed on unchanged. Only supervised
    positions go through the head, and no logits are kept.
    """
    original = model.forward
    text_config = model.config.get_text_config()
    scale, softcap = read_logit_scale(text_config), read_softcap(text_config)

    # `generate` checks its arguments against the signature, so the signature stays the model's own.
    @functools.wraps(type(model).forward)
    def forward(
        self: Any, *args: Any, token_weights: torch.Tensor | FullPrecisionLoss | None = None, **kwargs: Any
    ) -> Any:
        if token_weights is None:
            return original(*args, **kwargs)
        carrier = token_weights if isinstance(token_weights, FullPrecisionLoss) else FullPrecisionLoss(token_weights)
        labels_BL = kwargs.pop("labels")[:, 1:]
        # Looked up on each call, because PEFT and FSDP replace these parts later.
        hidden_BLD = self.base_model(*args, **kwargs).last_hidden_state[:, :-1]
        head = self.get_output_embeddings()
        bias_V = getattr(head, "bias", None)  # PEFT's wrapper of a tied head has no such attribute
        weight_VD, bias_V = gather_parameter(head.weight), None if bias_V is None else gather_parameter(bias_V)
        with maybe_gather_lm_head_ctx(weight_VD, bias_V):
            output = weighted_linear_cross_entropy(
                hidden_BLD.flatten(0, 1).to(weight_VD.device),
                weight_VD,
                labels_BL.flatten().to(weight_VD.device),
                carrier.weights_BL.flatten().to(weight_VD.device),
                bias_V=bias_V,
                softcap=softcap,
                logit_scale=scale,
                impl=impl,
                entropy=entropy,
                counts=carrier.counts,
                gate=carrier.gate,
                gated_T=None if carrier.gated_BL is None else carrier.gated_BL.flatten().to(weight_VD.device),
            )
        loss, *token_values = output
        carrier.found = WeightedOutput(loss, *(values_T.view_as(labels_BL) for values_T in token_values))
        return WeightedOutput(**carrier.found)

    model.forward = types.MethodType(forward, model)


@torch.no_grad()
def check_weighted_head(model: PreTrainedModel) -> None:
    """Raises ValueError if `model` does more to its logits than the weighted head, which would train another loss.

    A forward of eight tokens without a picture finds out. A model that takes no such input is not checked, with a
    warning; nor is one without weights, as on all ranks but the first where FSDP loads.
    """
    if model.device.type == "meta":
        return
    ids = torch.arange(1, _PROBE_TOKENS + 1, device=model.device)[None] % model.config.get_text_config().vocab_size
    ones = torch.ones(1, _PROBE_TOKENS - 1, device=model.device)
    with evaluation_mode(model), gather_zero3_parameters(model):
        try:
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        except torch.OutOfMemoryError:
            raise
        except PROBE_ERRORS as error:
            logger.warning(
                "the loss was not compared with the logits of %s, because it takes no text alone (%s): compare its "
                "first loss with that of another trainer",
                *(type(model).__name__, error),
            )
            return
        ours_T = model(input_ids=ids, labels=ids, token_weights=ones, use_cache=False).nll[0].double()
        own_T = F.cross_entropy(logits.double(), ids[0, 1:], reduction="none")
        rounding = 4 * torch.finfo(logits.dtype).eps * float(logits.abs().max()) + _LEAST_ROUNDING
        # Torch's own loss, too, adds the vocabulary in float32: 2e-4 nats off for 151,936 logits on a CPU.
        rounding += torch.finfo(torch.float32).eps * logits.shape[-1] / _LANES
    if float((own_T - ours_T).abs().max()) > rounding:
        raise ValueError(
            f"on eight tokens the loss of {type(model).__name__} is {float(own_T.mean()):.4f} nats per token, that of "
            f"the weighted head {float(ours_T.mean()):.4f}; expected the same. The model changes its logits in a way "
            "that the head does not know, so it cannot be trained here"
        )
