"""Copies a language model's weights into a tiny model of another architecture, which then only has to learn to see.

Tokens are matched by their text. The donor (Qwen2.5) and the decoders have the same layers, with two exceptions:
biases, which are not copied, and Gemma 3, which scales embeddings, centres norms at zero and has two more of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Gemma3ForConditionalGeneration, PreTrainedModel

_LANGUAGE = "model.language_model."
# Gemma 3 names the norm of its feed-forward input otherwise; the donor has no counterpart of its output norms.
_GEMMA_NAMES = {"pre_feedforward_layernorm": "post_attention_layernorm", "post_attention_layernorm": None}


@torch.no_grad()
def graft_language_model(model: PreTrainedModel, tokenizer: Any, donor: PreTrainedModel, donor_tokenizer: Any) -> int:
    """Copy the donor's language model into `model` where names and shapes agree; return the number of copied tensors.

    Raises ValueError where nothing fits, because widths or depths differ.
    """
    donated = {name: value for name, value in donor.named_parameters() if name.startswith(_LANGUAGE)}
    gemma = isinstance(model, Gemma3ForConditionalGeneration)
    copied = 0
    for name, own in model.named_parameters():
        source = donated.get(_donor_parameter_name(name, gemma))
        if source is None or source.shape[1:] != own.shape[1:]:
            continue
        if "embed_tokens" in name or name == "lm_head.weight":
            _copy_shared_token_rows(own, tokenizer, source, donor_tokenizer, own.shape[1] ** -0.5 if gemma else 1.0)
        elif source.shape == own.shape:
            own.copy_(source - 1.0 if gemma and "norm" in name else source)
        else:
            continue
        copied += 1
    if not copied:
        raise ValueError(
            "no tensor of the donor's language model fits: set model_size to the donor's widths and depths"
        )
    return copied


def _donor_parameter_name(name: str, gemma: bool) -> str:
    if name == "lm_head.weight":  # the donor's is tied to its embeddings
        return f"{_LANGUAGE}embed_tokens.weight"
    for own, other in _GEMMA_NAMES.items() if gemma else ():
        if f".{own}." in name:
            return name.replace(own, other) if other else ""
    return name


def _copy_shared_token_rows(
    own_VD: Tensor, tokenizer: Any, source_VD: Tensor, donor_tokenizer: Any, scale: float
) -> None:
    known = donor_tokenizer.get_vocab()
    pairs = [(index, known[token]) for token, index in tokenizer.get_vocab().items() if token in known]
    ours, theirs = map(list, zip(*pairs, strict=True))
    own_VD[ours] = source_VD[theirs] * scale
