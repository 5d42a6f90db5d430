"""What belongs to a training's stage, SFT or GRPO: its config, its trainer, and a recipe's settings as that config."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.runs.paths import RunFiles
from balanced_thinking.training.checks import check_settings
from balanced_thinking.training.grpo import ScaleGRPOTrainer
from balanced_thinking.training.grpo_config import ScaleGRPOConfig
from balanced_thinking.training.launcher import follow_launcher
from balanced_thinking.training.options import DEFAULTS
from balanced_thinking.training.recipe import Recipe
from balanced_thinking.training.safety import (
    refuse_several_gpus,
    refuse_shards_in_one_process,
    refuse_unsupported_precision,
    refuse_vllm_without_gpu,
)
from balanced_thinking.training.sft import ScaleSFTTrainer
from balanced_thinking.training.sft_config import ScaleSFTConfig, refuse_offloading_without_gpu


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
    recipe = follow_launcher(recipe)
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
        refuse_shards_in_one_process(args, recipe.ranks)
    except (ValueError, TypeError, OSError, ImportError, NotImplementedError) as error:
        raise RecipeError(str(error)) from error
    return args
