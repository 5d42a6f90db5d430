"""One optimizer step by our trainer, and the same step by the definition.

Shapes: L positions of a sample, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback, set_seed

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.conformance.loading import NOT_INPUTS
from balanced_thinking.conformance.subject import Subject
from balanced_thinking.segments import ANSWER, THINK
from balanced_thinking.training.sft import ScaleSFTTrainer
from balanced_thinking.training.sft_config import ScaleSFTConfig

_SEED = 0
# Options of a run that says nothing and keeps nothing. Gradients are not clipped, so that they can be compared.
QUIET: dict[str, Any] = {
    "logging_steps": 1,
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
    "seed": _SEED,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "max_length": None,
}


@dataclass(frozen=True)
class Step:
    """Loss and gradients of one optimizer step, and whether its samples shared rows."""

    loss: float
    gradients: dict[str, Tensor]
    packed: bool = False


class _Gradients(TrainerCallback):
    """Keeps the gradients of the first optimizer step."""

    def __init__(self) -> None:
        self.found: dict[str, Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.found = gradients_of(model)


def gradients_of(model: Any) -> dict[str, Tensor]:
    """A copy of each gradient in float64, by the parameter's name."""
    named = ((name, value.grad) for name, value in model.named_parameters())
    return {name: grad.double().clone() for name, grad in named if grad is not None}


def adapter_config(subject: Subject) -> LoraConfig | None:
    """Real weights are trained by a small adapter, so that a check needs little more memory than the weights."""
    if not subject.real_weights:
        return None
    return LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)


def take_step(subject: Subject, batch_size: int, *, packing: bool = False) -> Step:
    """One step of `ScaleSFTTrainer` on all samples, cut into micro-batches of `batch_size`."""
    rows, norms = subject.rows(), _Gradients()
    args = ScaleSFTConfig(
        output_dir=str(subject.work / "steps"),
        max_steps=1,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=len(rows) // batch_size,
        packing=packing,
        max_grad_norm=1e9,
        weighting="scale",
        save_strategy="no",
        reasoning_format=subject.format,
        **QUIET,
    )
    set_seed(_SEED)
    loaded = subject.load()
    trainer = ScaleSFTTrainer(
        loaded.model,
        args,
        train_dataset=rows,
        processing_class=loaded.processor,
        peft_config=adapter_config(subject),
        callbacks=[norms],
    )
    trainer.pop_callback(PrinterCallback)
    trainer.train()
    loss = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    return Step(loss, norms.found, trainer.data_collator.packing is not None)


def reference_step(subject: Subject, think: float, answer: float) -> Step:
    """The same step by the definition: each sample alone, without padding, plain attention and log-softmax.

    `think` and `answer` are the weights of the segments' means.
    """
    set_seed(_SEED)
    loaded = subject.load(attn_implementation="eager")
    adapter = adapter_config(subject)
    model = get_peft_model(loaded.model, adapter) if adapter else loaded.model
    model.train()
    collator = ScaleCollator(loaded.processor, subject.format)
    batches = [collator([row]) for row in subject.sample_rows()]
    examples = {segment: sum(bool((batch["segment_ids"] == segment).any()) for batch in batches) for segment in _BOTH}
    shares = {THINK: think, ANSWER: answer}
    total = 0.0
    for batch in batches:
        nll_L, segments_L = _negative_log_likelihoods(model, batch)
        means = [shares[s] * nll_L[segments_L == s].mean() / examples[s] for s in _BOTH if (segments_L == s).any()]
        loss = torch.stack(means).sum()
        loss.backward()
        total += loss.item()
    return Step(total, gradients_of(model))


_BOTH = (THINK, ANSWER)


def _negative_log_likelihoods(model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Of the supervised tokens of one sample, in float64 nats, and their segments."""
    inputs = {name: value for name, value in batch.items() if name not in NOT_INPUTS}
    logits_LV = model(**inputs, use_cache=False).logits[0, :-1]
    segments_L, targets_L = batch["segment_ids"][0, 1:], batch["input_ids"][0, 1:]
    supervised = segments_L > 0
    logs_LV = logits_LV[supervised].double().log_softmax(-1)
    return -logs_LV.gather(1, targets_L[supervised, None])[:, 0], segments_L[supervised]


def relative_error(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Norm of the difference of all gradients, divided by that of `theirs`."""
    squares = [((ours[name] - theirs[name]).square().sum(), theirs[name].square().sum()) for name in theirs]
    return float((sum(d for d, _ in squares) / sum(n for _, n in squares)) ** 0.5)


def unlike_names(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> Sequence[str]:
    """Parameters that have a gradient in only one of the two."""
    return sorted(ours.keys() ^ theirs.keys())
