"""Whether and how the samples of a model's micro-batches share rows."""

from __future__ import annotations

import logging
from typing import Any

import torch

from balanced_thinking.batch.collator import Packing
from balanced_thinking.packing.attention import use_per_sample_attention
from balanced_thinking.packing.positions import RopeIndex
from balanced_thinking.packing.probe import isolates_samples

logger = logging.getLogger(__name__)
_ONE_ROW = 2**31  # tokens: no micro-batch has more


def choose_packing(model: Any, pack_tokens: int | None, accelerator: Any) -> Packing | None:
    """How to pack for `model`; None, with a warning, where it may not isolate the samples of a row.

    Raises ValueError for `pack_tokens` with FlashAttention.
    """
    with use_per_sample_attention(model) as by_sample:
        # All ranks must pack alike, so the first one decides. Under FSDP it may be the only one with weights.
        isolated = torch.tensor(float(isolates_samples(model)), device=accelerator.device)
    if not accelerator.reduce(isolated * accelerator.is_main_process, "sum"):
        logger.warning(
            "packing is off, because %s may not isolate the samples of a row; padded micro-batches get samples of "
            "similar length instead",
            type(model).__name__,
        )
        return None
    flash = "flash" in (model.config.get_text_config()._attn_implementation or "")
    if flash and pack_tokens is not None:
        raise ValueError(
            f"pack_tokens is {pack_tokens}, but FlashAttention needs one row of all samples; leave it out, and limit "
            "the memory by per_device_train_batch_size"
        )
    # A dense mask costs the square of a row's length. Without one all samples can share a single row.
    tokens = pack_tokens or (_ONE_ROW if flash or by_sample else None)
    return Packing(tokens, RopeIndex.from_model(model), flash)
