"""Does a model isolate the samples of a packed row from each other? A short forward finds out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled

from balanced_thinking.packing.attention import use_packed_rows
from balanced_thinking.packing.layout import PackingLayout
from balanced_thinking.packing.positions import RopeIndex

# Vision models by `model_type` that our tests pack. In others images may attend to each other across samples.
TESTED_MODEL_TYPES = (
    *("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v", "glm46v"),
    *("llava", "llava_next", "llava_onevision", "internvl", "mistral3", "gemma3", "qwen3_5"),
)
PROBE_ERRORS = (RuntimeError, TypeError, ValueError, LookupError, AttributeError)  # of a model given unknown inputs
_ROUNDING = 1e-3  # relative; the tokens of another sample would change far more
_TEXT_TOKENS = 6  # of each sample of the probe


@torch.no_grad()
def isolates_samples(model: PreTrainedModel) -> bool:
    """Whether a sample's hidden states are independent of the samples before it in its row.

    A forward of twelve tokens finds out. It has no images, so a vision model must also be one that our tests pack.
    FlashAttention isolates samples by itself. Attention in chunks (Llama 4) would begin a sample's chunks elsewhere.
    """
    if getattr(model.config.get_text_config(), "attention_chunk_size", None):
        return False
    if hasattr(model.config, "vision_config") and model.config.model_type not in TESTED_MODEL_TYPES:
        return False
    if "flash" in (model.config.get_text_config()._attn_implementation or ""):
        return True
    device, vocabulary = model.device, model.config.get_text_config().vocab_size
    text = torch.arange(1, 2 * _TEXT_TOKENS + 1, device=device) % vocabulary
    other = torch.cat([text[:_TEXT_TOKENS].flip(0), text[_TEXT_TOKENS:]])
    last = []
    try:
        for ids in (text, other):
            with (
                evaluation_mode(model),
                use_packed_rows([[_TEXT_TOKENS, _TEXT_TOKENS]]),
                gather_zero3_parameters(model),
            ):
                last.append(model.base_model(**_probe_inputs(model, ids)).last_hidden_state[0, _TEXT_TOKENS:])
    except torch.OutOfMemoryError:
        raise
    except PROBE_ERRORS:
        return False  # it does not accept such positions at all
    return bool((last[0] - last[1]).abs().max() <= _ROUNDING * last[0].abs().max())


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Dropout is off; afterwards each part is in training or not as before."""
    training = [part for part in model.modules() if part.training]
    model.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextmanager
def gather_zero3_parameters(model: PreTrainedModel) -> Iterator[None]:
    """Gather each module's parameters during its forward under ZeRO-3.

    ZeRO-3 shards a model when it is loaded, but gathers parameters by itself only once its engine exists.
    """
    if not is_deepspeed_zero3_enabled():
        yield
        return
    import deepspeed

    held: dict[torch.nn.Module, ExitStack] = {}

    def gather_parameters(module: torch.nn.Module, *_: Any) -> None:
        held[module] = ExitStack()
        held[module].enter_context(deepspeed.zero.GatheredParameters(list(module.parameters(recurse=False))))

    def release_parameters(module: torch.nn.Module, *_: Any) -> None:
        held.pop(module).close()

    with ExitStack() as hooks:
        for module in model.modules():
            if next(module.parameters(recurse=False), None) is not None:
                hooks.callback(module.register_forward_pre_hook(gather_parameters).remove)
                hooks.callback(module.register_forward_hook(release_parameters).remove)
        try:
            yield
        finally:
            for left in held.values():  # after a forward that failed
                left.close()


def _probe_inputs(model: PreTrainedModel, ids: Tensor) -> dict[str, Any]:
    layout = PackingLayout([[0, 1]], [_TEXT_TOKENS, _TEXT_TOKENS])
    axes = layout.position_ids()[None].expand(3, -1, -1) if RopeIndex.from_model(model) else None
    positions = layout.position_ids() if axes is None else torch.cat([layout.position_ids()[None], axes])
    return {"input_ids": ids[None], "position_ids": positions.to(ids.device), "use_cache": False}
