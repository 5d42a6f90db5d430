"""Training runs for tests: one optimizer step or a few, on a tiny model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback

from balanced_thinking.batch.info import BATCH_INFO
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.training.sft import ScaleSFTTrainer
from balanced_thinking.training.sft_config import ScaleSFTConfig


class GradNorms(TrainerCallback):
    """Gradient norms before clipping, in float64."""

    def __init__(self) -> None:
        self.norms: list[float] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        squares = [float(p.grad.double().square().sum()) for p in model.parameters() if p.grad is not None]
        self.norms.append(sum(squares) ** 0.5)


QUIET: dict[str, Any] = {
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "gradient_checkpointing": False,
    "disable_tqdm": True,
    "use_cpu": True,
    "seed": 3,
}


def config(out: Path, **options: Any) -> ScaleSFTConfig:
    defaults: dict[str, Any] = {
        "output_dir": str(out),
        "max_steps": 1,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1e9,
        "weighting": "scale",
    }
    return ScaleSFTConfig(**(QUIET | defaults | options))


def trainer(architecture: str, rows: Dataset, args: ScaleSFTConfig, **options: Any) -> ScaleSFTTrainer:
    model, processor = build_tiny(architecture)
    return ScaleSFTTrainer(model, args, train_dataset=rows, processing_class=processor, **copy.copy(options))


def model_inputs(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch without what only the trainer reads."""
    return {name: value for name, value in batch.items() if name != BATCH_INFO}


def logged(trained: Any, name: str) -> list[float]:
    return [entry[name] for entry in trained.state.log_history if name in entry]


def losses(trained: Any) -> list[float]:
    return logged(trained, "loss")
