"""One training run from its recipe: data, model, trainer, and a run directory that explains itself."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import ProgressCallback, set_seed
from transformers.trainer_utils import get_last_checkpoint

from balanced_thinking import runs
from balanced_thinking.data import Loaded as LoadedData
from balanced_thinking.data import assert_no_overlap, load_data
from balanced_thinking.data.rows import to_dataset
from balanced_thinking.models.load import Loaded, load_model
from balanced_thinking.models.tiny import TinySize
from balanced_thinking.training.callbacks import MetricsFile, ReadableProgress
from balanced_thinking.training.recipe import Recipe, typed_arguments
from balanced_thinking.training.sft import ScaleSFTConfig, ScaleSFTTrainer


def training_arguments(recipe: Recipe, out: Path) -> ScaleSFTConfig:
    """The recipe's training section as a config; unknown keys fail with the nearest known one."""
    defaults = {"report_to": "none", "logging_steps": 10, "save_total_limit": 2}
    values = {**defaults, **recipe.training, "output_dir": str(out / "checkpoints")}
    return ScaleSFTConfig(**typed_arguments(ScaleSFTConfig, values))


def train(recipe: Recipe, out: Path, *, resume: bool = False) -> Path:
    """Train, save the model to `out/model`, and return that folder."""
    args = training_arguments(recipe, out)
    train_data = _load(recipe, recipe.split, recipe.data_options)
    validation = _load(recipe, recipe.validation_split, recipe.validation_options) if recipe.validation_split else None
    if validation:
        assert_no_overlap(training=train_data.examples, validation=validation.examples)
    set_seed(args.seed)
    loaded = load_model(
        recipe.model,
        seed=args.seed,
        size=TinySize(**recipe.model_size) if recipe.model_size else None,
        **recipe.model_options,
    )
    arm = recipe.arm or ("sft" if args.weighting == "uniform" else "scale-sft")
    about = {
        "arm": arm,
        "seed": args.seed,
        "model": recipe.model,
        "device": str(args.device),
        "dropped": train_data.dropped,
    }
    if args.process_index == 0:
        runs.create(out, recipe.to_yaml(), about, resume=resume)
    trainer = ScaleSFTTrainer(
        loaded.model,
        args,
        train_dataset=_dataset(train_data, args),
        eval_dataset=_dataset(validation, args) if validation else None,
        processing_class=loaded.processor,
        peft_config=LoraConfig(task_type="CAUSAL_LM", **recipe.lora) if recipe.lora else None,
        callbacks=[MetricsFile(out / "metrics.jsonl")],
    )
    if trainer.pop_callback(ProgressCallback):
        trainer.add_callback(ReadableProgress)
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=_checkpoint(args.output_dir) if resume else None)
    seconds = time.perf_counter() - started
    _save(trainer, loaded, out / "model")
    if trainer.is_world_process_zero():
        runs.finish(out, train_seconds=round(seconds, 2), steps=trainer.state.global_step, peak_mib=_peak_mib())
    return out / "model"


def _load(recipe: Recipe, split: str, options: dict[str, Any]) -> LoadedData:
    loaded = load_data(recipe.data, split=split, limit=recipe.limit, on_bad_row=recipe.on_bad_row, options=options)
    if not loaded.examples:
        raise ValueError(f"{recipe.data}, split {split}, has no usable row ({loaded.dropped} bad ones were dropped)")
    return loaded


def _dataset(data: LoadedData, args: ScaleSFTConfig) -> Dataset:
    return to_dataset(data.examples, args.reasoning_format)


def _checkpoint(folder: str) -> str | None:
    return get_last_checkpoint(folder) if Path(folder).is_dir() else None


def _save(trainer: ScaleSFTTrainer, loaded: Loaded, folder: Path) -> None:
    trainer.save_model(str(folder))
    if trainer.is_world_process_zero():
        loaded.processor.save_pretrained(str(folder))


def _peak_mib() -> int:
    """Peak memory of the run: the device's where there is one, else the process's."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated() / 2**20)
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak / (2**20 if sys.platform == "darwin" else 2**10))
