"""What belongs to a training's stage, SFT or GRPO: its config, its trainer, and a recipe's settings as that config."""

from __future__ import annotations

from inspect import Parameter, signature
from pathlib import Path
from typing import Any, NamedTuple

from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.names import did_you_mean
from balanced_thinking.runs.paths import RunFiles
from balanced_thinking.training.checks import check_settings
from balanced_thinking.training.grpo import ScaleGRPOTrainer
from balanced_thinking.training.grpo_config import ScaleGRPOConfig
from balanced_thinking.training.options import DEFAULTS
from balanced_thinking.training.recipe import Recipe
from balanced_thinking.training.safety import (
    refuse_several_gpus,
    refuse_unsupported_precision,
    refuse_vllm_without_gpu,
)
from balanced_thinking.training.sft import ScaleSFTTrainer
from balanced_thinking.training.sft_config import ScaleSFTConfig, refuse_offloading_without_gpu

# What the trainer gives to every schedule.
_OF_THE_TRAINING = ("optimizer", "num_warmup_steps", "num_training_steps", "last_epoch")


class StageClasses(NamedTuple):
    config: type
    trainer: type


STAGE_CLASSES = {
    "sft": StageClasses(ScaleSFTConfig, ScaleSFTTrainer),
    "grpo": StageClasses(ScaleGRPOConfig, ScaleGRPOTrainer),
}


def training_arguments(recipe: Recipe, out: Path) -> Any:
    """The recipe's training section as its stage's config.

    Raises RecipeError for settings that cannot be, alone, together or on this machine.
    """
    arguments = check_settings(recipe)
    refuse_unsupported_precision(arguments)
    config = STAGE_CLASSES[recipe.stage].config
    try:
        values = {**DEFAULTS, "run_name": str(out), **arguments, "output_dir": str(RunFiles(out).checkpoints)}
        args = config(**values)
        if "device_map" not in recipe.model_options:
            refuse_several_gpus(args)
        refuse_vllm_without_gpu(args)
        refuse_offloading_without_gpu(args)
    except (ValueError, TypeError, OSError, ImportError, NotImplementedError) as error:
        raise RecipeError(str(error)) from error
    _check_scheduler(args)
    return args


def _check_scheduler(args: Any) -> None:
    """Raises RecipeError for a key that the learning rate's schedule does not take, and for one that it lacks."""
    schedule, given = args.lr_scheduler_type.value, args.lr_scheduler_kwargs or {}
    taken = signature(TYPE_TO_SCHEDULER_FUNCTION[args.lr_scheduler_type]).parameters
    takes_any = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in taken.values())
    for key in given:
        if key not in taken and not takes_any:
            known = ", ".join(name for name in taken if name not in _OF_THE_TRAINING)
            raise RecipeError(
                f"lr_scheduler_kwargs has the key {key!r}{did_you_mean(key, taken)}, which the schedule "
                f"{schedule} does not take; known: {known}"
            )
    plain = {name: p for name, p in taken.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    needed = [name for name, p in plain.items() if p.default is Parameter.empty and name not in _OF_THE_TRAINING]
    needed += [] if {"min_lr", "min_lr_rate"} & {*given} or not schedule.endswith("with_min_lr") else ["min_lr_rate"]
    for name in needed:
        if name not in given:
            raise RecipeError(
                f"lr_scheduler_type is {schedule!r}, which needs {name}; set --lr_scheduler_kwargs.{name} VALUE"
            )
