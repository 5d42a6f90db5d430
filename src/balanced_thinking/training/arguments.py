"""Names and types of a stage's training arguments, ours and upstream's, and of LoRA's.

They are read without importing torch, TRL or PEFT.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.source import SourceClass, SourceError, field_types
from balanced_thinking.config.types import AdmittedTypes, Choices, admitted_types
from balanced_thinking.models.part_names import LORA_TARGETS
from balanced_thinking.training.options import ScaleGRPOOptions, ScaleSFTOptions

OPTIONS: dict[str, Any] = {"sft": ScaleSFTOptions, "grpo": ScaleGRPOOptions}
_COMMON = (
    SourceClass("transformers", "training_args.py", "TrainingArguments"),
    SourceClass("trl", "trainer/base_config.py", "_BaseConfig"),
)
_STAGE_CONFIGS = {
    "sft": SourceClass("trl", "trainer/sft_config.py", "SFTConfig"),
    "grpo": SourceClass("trl", "trainer/grpo_config.py", "GRPOConfig"),
}
_LORA = (
    *(SourceClass("peft", "config.py", name) for name in ("PeftConfigMixin", "PeftConfig")),
    SourceClass("peft", "tuners/lora/config.py", "LoraConfig"),
)
_ENUMERATIONS = (
    *(
        SourceClass("transformers", "trainer_utils.py", name)
        for name in ("IntervalStrategy", "SaveStrategy", "HubStrategy", "SchedulerType")
    ),
    SourceClass("transformers", "training_args.py", "OptimizerNames"),
)
_ALSO_BOOL = ("scale_rewards",)  # declared as text, because the parser of transformers reads no such union
_CREDENTIALS = {"hub_token", "token", "use_auth_token"}
# Other names of a recipe's key or an argument -> its name.
SYNONYMS = {
    "lr": "learning_rate",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "steps": "max_steps",
    "batch_size": "per_device_train_batch_size",
    "train_batch_size": "per_device_train_batch_size",
    "eval_batch_size": "per_device_eval_batch_size",
    "accumulation": "gradient_accumulation_steps",
    "grad_accum": "gradient_accumulation_steps",
    "grad_accumulation_steps": "gradient_accumulation_steps",
    "scheduler": "lr_scheduler_type",
    "optimizer": "optim",
    "warmup": "warmup_steps",
    "max_seq_length": "max_length",
    "max_new_tokens": "max_completion_length",
    "group_size": "num_generations",
    "kl": "beta",
    "workers": "dataloader_num_workers",
    "rank": "lora.r",
    "lora_rank": "lora.r",
    "lora_r": "lora.r",
    "lora_alpha": "lora.lora_alpha",
    "lora_dropout": "lora.lora_dropout",
    "target_modules": "lora.target_modules",
    "max_pixels": "image_options.max_pixels",
    "min_pixels": "image_options.min_pixels",
    "dtype": "model_options.dtype",
    "torch_dtype": "model_options.dtype",
    "attn_implementation": "model_options.attn_implementation",
    "dataset": "data",
    "base_model": "model",
    "model_name": "model",
    "model_name_or_path": "model",
    "output": "out",
    "output_dir": "out",
    # TRL's scripts
    "dataset_name": "data",
    "dataset_train_split": "split",
    "dataset_test_split": "validation_split",
    "use_peft": "lora",
    "lora_target_modules": "lora.target_modules",
    "lora_modules_to_save": "lora.modules_to_save",
    "use_rslora": "lora.use_rslora",
    "use_dora": "lora.use_dora",
    "load_in_4bit": "quantization",
    "load_in_8bit": "quantization",
    "reward_funcs": "rewards",
    # LLaMA-Factory
    "finetuning_type": "lora",
    "lora_target": "lora.targets",
    "adapter_name_or_path": "model",
    "flash_attn": "model_options.attn_implementation",
    "pure_bf16": "model_options.dtype",
    "infer_dtype": "model_options.dtype",
    "quantization_bit": "quantization",
    "quantization_method": "quantization",
    "freeze_vision_tower": "lora.targets",
    "freeze_multi_modal_projector": "lora.targets",
    "freeze_language_model": "freeze",
    "image_max_pixels": "image_options.max_pixels",
    "image_min_pixels": "image_options.min_pixels",
    "cutoff_len": "max_length",
    "neat_packing": "packing",
    "mask_history": "data_options.turns",
    "max_samples": "limit",
    "media_dir": "data_options.image_root",
    "eval_dataset": "validation_split",
    "val_size": "validation_split",
    "template": "chat_template_path",
    "disable_gradient_checkpointing": "gradient_checkpointing",
    "warmup_ratio": "warmup_steps",
    # ms-swift
    "train_type": "lora",
    "tuner_type": "lora",
    "adapters": "model",
    "attn_impl": "model_options.attn_implementation",
    "quant_bits": "quantization",
    "quant_method": "quantization",
    "freeze_vit": "lora.targets",
    "freeze_aligner": "lora.targets",
    "freeze_llm": "freeze",
    "truncation_strategy": "overflow",
    "loss_scale": "weighting",
    "columns": "data_options.columns",
    "strict": "on_bad_row",
    "val_dataset": "validation_split",
    "split_dataset_ratio": "validation_split",
    # unsloth
    "full_finetuning": "lora",
    "finetune_vision_layers": "lora.targets",
    "finetune_language_layers": "lora.targets",
}
LORA_SYNONYMS = {
    "rank": "r",
    "lora_r": "r",
    "lora_rank": "r",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "target": "targets",
    "modules": "target_modules",
    "layers": "layers_to_transform",
}


@cache
def argument_types(stage: str) -> Mapping[str, AdmittedTypes]:
    """The admitted types of each training argument of a stage, including `output_dir`, which the run sets."""
    try:
        upstream = field_types((*_COMMON, _STAGE_CONFIGS[stage]), _ENUMERATIONS)
    except SourceError:  # another release, or no source: read the classes themselves
        from balanced_thinking.training.stages import STAGE_CLASSES

        return admitted_types(STAGE_CLASSES[stage].config)
    found = upstream | admitted_types(OPTIONS[stage])
    return found | {name: {*found[name], bool} for name in _ALSO_BOOL if name in found}


def list_meanings() -> Mapping[str, str]:
    """What a name at the top of a recipe may mean: a training argument, which is a key of `training`, or a synonym."""
    meant = {name: f"training.{name}" for stage in OPTIONS for name in argument_types(stage)}
    synonyms = {synonym: meant.get(name, name) for synonym, name in SYNONYMS.items()}
    return meant | synonyms | {"output": "--out", "output_dir": "--out", "resume_from_checkpoint": "--resume"}


@cache
def lora_types() -> Mapping[str, AdmittedTypes]:
    """The admitted types of each argument of PEFT's LoraConfig, and of `targets`, which is ours."""
    try:
        upstream = field_types(_LORA)
    except SourceError:
        from peft import LoraConfig

        upstream = admitted_types(LoraConfig)
    return {**upstream, "targets": {Choices(tuple(LORA_TARGETS)), type(None)}}


def refuse_credentials(*sections: Mapping[str, Any]) -> None:
    """Raises RecipeError for a token in a part of a recipe."""
    for name in sorted(name for section in sections for name in _CREDENTIALS if section.get(name) is not None):
        raise RecipeError(
            f"{name} would be kept in the run's config.yaml, for all who get the run; leave it out, and run "
            "`hf auth login` or set HF_TOKEN"
        )
