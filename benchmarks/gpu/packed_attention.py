"""Packed samples against padded ones: losses of every sample and the gradient, beside float32's.

In float32 both must agree to rounding. In bfloat16 the packed ones may be no further from float32 than twice the padded
ones. Rows whose samples see each other must fail the same check, so that it can be trusted.

Shapes: E samples, L positions.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import set_seed

from balanced_thinking import ScaleSFTConfig, ScaleSFTTrainer
from balanced_thinking.batch.info import BATCH_INFO
from balanced_thinking.models.find import TinySize
from balanced_thinking.models.tiny import build_tiny
from gpu.rows import Emit, Row, Setting, contestant
from sft_step import rows as world_rows

LOSS, GRADIENT = 1e-5, 1e-4  # largest relative differences in float32 that are rounding
WORSE = 2.0  # how far packed samples may be from float32, in errors of padded ones
SIZE = TinySize(hidden=1024, layers=8, heads=16, vision_hidden=256, vision_layers=4)
SAMPLES, FEW_SAMPLES = 12, 4


@dataclass(frozen=True)
class Kind:
    """How a step is computed; `leaky` lets the samples of a packed row see each other."""

    dtype: torch.dtype
    packing: bool
    attention: str = "sdpa"
    leaky: bool = False


@dataclass(frozen=True)
class Step:
    """(E,) mean nll of each sample, in nats a token, and the gradient of all parameters as one vector."""

    losses_E: Tensor
    gradient: Tensor


def measure(setting: Setting, emit: Emit) -> None:
    data = world_rows(FEW_SAMPLES if setting.small else SAMPLES, None)
    exact = take_step(Kind(torch.float32, False), data, setting)
    packed = take_step(Kind(torch.float32, True), data, setting)
    compare("float32, sdpa, packed", packed, exact, (LOSS, GRADIENT), emit)
    leaky = take_step(Kind(torch.float32, True, leaky=True), data, setting)
    loss, gradient = errors(leaky, exact)
    noticed = loss > LOSS and gradient > GRADIENT
    emit(Row("float32, samples that see each other", gradient, "", "noticed above", GRADIENT, noticed))
    padded = errors(take_step(Kind(torch.bfloat16, False), data, setting), exact)
    eps = torch.finfo(torch.bfloat16).eps
    allowed = WORSE * padded[0] + eps / 8, WORSE * padded[1]
    for attention in ("sdpa", "flash_attention_2"):
        if attention != "sdpa" and (setting.small or find_spec("flash_attn") is None):
            why = "needs a GPU" if setting.small else "flash_attn is not installed; its wheel is larger than the bundle"
            emit(Row(f"bfloat16, {attention}, packed", None, note=f"left out: {why}"))
            continue
        with contestant(emit, f"bfloat16, {attention}, packed", holds=False):
            found = take_step(Kind(torch.bfloat16, True, attention), data, setting)
            compare(f"bfloat16, {attention}, packed", found, exact, allowed, emit)


def compare(name: str, found: Step, exact: Step, allowed: tuple[float, float], emit: Emit) -> None:
    for what, error, most in zip(("losses of the samples", "gradient"), errors(found, exact), allowed, strict=True):
        emit(Row(f"{name}: {what}", error, "", "allowed", most, error <= most))


def errors(found: Step, exact: Step) -> tuple[float, float]:
    """The largest relative error of a sample's loss, and the relative error of the gradient in norm."""
    loss = ((found.losses_E - exact.losses_E).abs() / exact.losses_E).max()
    return loss.item(), ((found.gradient - exact.gradient).norm() / exact.gradient.norm()).item()


def take_step(kind: Kind, data: Dataset, setting: Setting) -> Step:
    """Forward and backward of our trainer on all samples in one batch, with the same weights for every kind."""
    set_seed(0)
    model, processor = build_tiny("qwen2_5_vl", size=TinySize() if setting.small else SIZE)
    model.set_attn_implementation(kind.attention)
    model = model.to(setting.device, kind.dtype)
    with tempfile.TemporaryDirectory() as folder:
        args = ScaleSFTConfig(
            folder,
            max_steps=1,
            weighting="scale",
            packing=kind.packing,
            use_cpu=setting.small,
            bf16=False,
            report_to="none",
            gradient_checkpointing=False,
        )
        trainer = ScaleSFTTrainer(model, args, train_dataset=data, processing_class=processor)
    batch = trainer._prepare_inputs(trainer.data_collator(list(data)))
    if kind.packing and batch[BATCH_INFO].lengths_by_row is None:
        raise RuntimeError("the samples were not packed: the model may not isolate them")
    if kind.leaky:
        batch[BATCH_INFO] = replace(
            batch[BATCH_INFO], lengths_by_row=[[sum(row)] for row in batch[BATCH_INFO].lengths_by_row]
        )
    losses = record_losses(trainer)
    model.train()
    with trainer._attention():
        counts = trainer._get_num_items_in_batch([batch], trainer.args.device)
        trainer.compute_loss(model, batch, num_items_in_batch=counts).backward()
    gradient = torch.cat([p.grad.double().flatten() for p in model.parameters() if p.grad is not None])
    return Step(losses[0].double(), gradient)


def record_losses(trainer: Any) -> list[Tensor]:
    """A list to which each training batch adds the mean nll of its samples."""
    found, totals = [], trainer._totals["train"]
    add_batch = totals.add_batch

    def recorded(segments_EL: Tensor, nll_EL: Tensor, *rest: Any) -> Any:
        supervised_EL = segments_EL > 0
        found.append((nll_EL * supervised_EL).sum(1) / supervised_EL.sum(1))
        return add_batch(segments_EL, nll_EL, *rest)

    totals.add_batch = recorded
    return found
