"""A micro-batch through forward, head and backward of a model without numbers, with the recorder of `trace` around."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from balanced_thinking.batch.info import BATCH_INFO, CLOSING_TAGS, BatchInfo
from balanced_thinking.estimate.attention import fused_attention
from balanced_thinking.estimate.autocast import LikeAutocast
from balanced_thinking.estimate.trace import Trace, Tracer
from balanced_thinking.estimate.windows import equal_windows_at_once
from balanced_thinking.loss.chunks import AssumedDevice, assume_device
from balanced_thinking.models.parts import without_adapter
from balanced_thinking.packing.attention import use_packed_rows, use_per_sample_attention
from balanced_thinking.packing.masks import bidirectional_image_masks, has_image_masks
from balanced_thinking.training import head
from balanced_thinking.training.head import FullPrecisionLoss

_HEAD = "weighted_linear_cross_entropy"  # as the head calls it
_LOOK_FOR_BLANKS = ("smolvlm", "idefics3")


def trace_micro_batch(
    model: Any, batch: dict[str, Any], device: AssumedDevice, *, accumulated: bool = False, sharded: bool = False
) -> Trace:
    """What a micro-batch computes and holds, weights aside. `model` is on the meta device, with its weighted head.

    `accumulated`: whether the gradients of earlier micro-batches are held as well. `sharded`: whether a gradient is
    passed on at once, so that none is held.
    """
    trained = [one for one in model.parameters() if one.requires_grad]
    with ExitStack() as stack:
        tracer = stack.enter_context(Tracer())
        base = without_adapter(model)
        for context in (assume_device(device), fused_attention(), _packed(model, batch), _head_named(tracer)):
            stack.enter_context(context)
        stack.enter_context(equal_windows_at_once(base, tracer.windows))
        tracer.ignore([*model.parameters(), *model.buffers()])
        for one in trained if accumulated and not sharded else ():
            one.grad = torch.empty_like(one)
            tracer.assign(one.grad, "gradients")
        hooks = [one.register_post_accumulate_grad_hook(_name_gradient(tracer, sharded)) for one in trained]
        hooks += _name_parts(model, tracer)
        inputs = _to_inputs(model, batch, tracer)
        with LikeAutocast(device.autocast) as autocast:
            loss = model(**inputs, use_cache=False).loss
            del inputs
            autocast.forget_copies()
        loss.backward()
        del loss
        for hook in hooks:
            hook.remove()
        for one in trained:
            one.grad = None
    return tracer.trace


def count_supervised(batch: dict[str, Any]) -> int:
    return int((batch["labels"][:, 1:] != -100).sum())


@contextmanager
def _packed(model: Any, batch: dict[str, Any]) -> Iterator[None]:
    base = without_adapter(model)
    rows = batch[BATCH_INFO].lengths_by_row
    with ExitStack() as stack:
        if rows is not None:
            stack.enter_context(use_per_sample_attention(base))
            stack.enter_context(use_packed_rows(rows))
        yield


def _to_inputs(model: Any, batch: dict[str, Any], tracer: Tracer) -> dict[str, Any]:
    """The arguments of the model. Only pictures and weights lose their numbers: of other tensors shapes may depend."""
    inputs = {name: value for name, value in batch.items() if name not in (BATCH_INFO, CLOSING_TAGS, "segment_ids")}
    info: BatchInfo = batch[BATCH_INFO]
    config, labels = model.config.get_text_config(), inputs["labels"]
    supervised = count_supervised(batch)
    with tracer.of_part("pictures"):
        for name, value in inputs.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                inputs[name] = _without_numbers(value, model.config)
    inputs["labels"] = torch.empty(labels.shape, dtype=labels.dtype, device="meta")
    weights = torch.empty(len(labels), labels.shape[1] - 1, device="meta")
    inputs["token_weights"] = FullPrecisionLoss(weights, (supervised, supervised))
    if info.lengths_by_row is not None and "token_type_ids" in inputs and has_image_masks(model.config):
        types = inputs["token_type_ids"]
        inputs["attention_mask"] = bidirectional_image_masks(config, info.lengths_by_row, types, torch.float32)
    return inputs


def _name_gradient(tracer: Tracer, sharded: bool) -> Any:
    def name(parameter: Tensor) -> None:
        if sharded:
            parameter.grad = None
        elif parameter.grad is not None:
            tracer.assign(parameter.grad, "gradients")

    return name


def _without_numbers(pictures: Tensor, config: Any) -> Tensor:
    """On the meta device; of families that look for blank tiles, one number for all.

    These are computed from in their own dtype until the tower's first layer, whose copy is counted.
    """
    if config.model_type in _LOOK_FOR_BLANKS:
        return torch.ones(1, dtype=pictures.dtype).expand(pictures.shape)
    return torch.empty(pictures.shape, dtype=pictures.dtype, device="meta")


@contextmanager
def _head_named(tracer: Tracer) -> Iterator[None]:
    """Within it what the weighted head makes is its own part."""
    original = getattr(head, _HEAD)

    def named(*args: Any, **kwargs: Any) -> Any:
        with tracer.of_part("head"):
            return original(*args, **kwargs)

    setattr(head, _HEAD, named)
    try:
        yield
    finally:
        setattr(head, _HEAD, original)


def _name_parts(model: Any, tracer: Tracer) -> list[Any]:
    """Hooks that say which part new tensors belong to."""
    base = without_adapter(model)
    tower = base.get_encoder(modality="image")
    if tower is None or tower is base:
        return []
    entered: list[ExitStack] = []

    def enter(*_: Any) -> None:
        entered.append(ExitStack())
        entered[-1].enter_context(tracer.of_part("pictures"))

    def leave(*_: Any) -> None:
        entered.pop().close()

    return [tower.register_forward_pre_hook(enter), tower.register_forward_hook(leave)]
