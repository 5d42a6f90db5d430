"""What a recipe says about a training's cost: read here only, from one or several files, for a number of devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.foreign_json import parse_json
from balanced_thinking.config.types import convert_values
from balanced_thinking.estimate.devices import Device, EstimateError
from balanced_thinking.training.arguments import SYNONYMS, argument_types
from balanced_thinking.training.bounds import check_argument_bounds, check_lora_bounds, check_recipe_bounds
from balanced_thinking.training.recipe import Recipe, load_recipe
from balanced_thinking.training.sft_config import ScaleSFTConfig

_DATA_UNREAD = "lengths-are-given"  # in place of data that an estimate does not read
_ADAMW = ("adamw_torch_fused", "adamw_torch", "adamw_apex_fused", "adamw_hf")
# Bytes of state for a trained number, by optimizer; None: one of its own arithmetic.
OPTIMIZERS: dict[str, float | None] = {
    **dict.fromkeys(_ADAMW, 8.0),
    **dict.fromkeys(("adamw_bnb_8bit", "adamw_8bit", "paged_adamw_8bit", "ademamix_8bit"), 2.0),
    "paged_adamw_32bit": 8.0,
    "paged_adamw": 8.0,
    "adamw_torch_8bit": 2.0,
    "adamw_torch_4bit": 1.0,
    "lion_32bit": 4.0,
    "lion": 4.0,
    "paged_lion_32bit": 4.0,
    "lion_8bit": 1.0,
    "paged_lion_8bit": 1.0,
    "rmsprop": 4.0,
    "adagrad": 4.0,
    "sgd": 0.0,
    "adafactor": None,
}


@dataclass(frozen=True)
class Plan:
    """A recipe on `count` devices. `arguments` are its training arguments with all defaults."""

    recipe: Recipe
    arguments: Mapping[str, Any]
    device: Device
    count: int
    sharding: str

    @property
    def micro_batch(self) -> int:
        return int(self.arguments["per_device_train_batch_size"])

    @property
    def accumulation(self) -> int:
        return int(self.arguments["gradient_accumulation_steps"])

    @property
    def step_samples(self) -> int:
        return self.micro_batch * self.accumulation * self.count

    @property
    def is_sharded(self) -> bool:
        """Whether each device holds a part of the weights only."""
        return self.sharding in ("fsdp2", "zero3")

    @property
    def checkpoints(self) -> bool:
        return bool(self.arguments["gradient_checkpointing"])

    @property
    def optimizer(self) -> str:
        return str(getattr(self.arguments["optim"], "value", self.arguments["optim"]))

    @property
    def weights_dtype(self) -> torch.dtype:
        """As in training: float32 unless `model_options.dtype` says otherwise."""
        named = self.recipe.model_options.get("dtype", "float32")
        return torch.bfloat16 if named == "auto" else getattr(torch, str(named).removeprefix("torch."))

    @property
    def autocast(self) -> torch.dtype | None:
        if self.arguments["fp16"]:
            return torch.float16
        wanted = self.arguments["bf16"]
        return torch.bfloat16 if (self.device.has_bfloat16 if wanted is None else wanted) else None

    def with_training(self, **changes: Any) -> Plan:
        return replace(self, arguments={**self.arguments, **changes})

    def with_recipe(self, **changes: Any) -> Plan:
        return replace(self, recipe=replace(self.recipe, **changes))


def read_plan(
    paths: Sequence[str | Path],
    overrides: Sequence[tuple[str, str]],
    device: Device,
    *,
    count: int | None = None,
    sharding: str | None = None,
    reads_data: bool = True,
) -> Plan:
    """The plan of a recipe; later files override earlier ones, and options of the command line all of them.

    Without `reads_data` its data need not be there. Raises RecipeError as training does, and EstimateError for what
    cannot be estimated.
    """
    given = [*overrides] if reads_data else [*overrides, ("data", _DATA_UNREAD)]
    recipe = _load(paths, given, reads_data)
    if recipe.stage != "sft":
        raise EstimateError(
            f"the recipe's stage is {recipe.stage!r}, and an estimate is of sft only: how long GRPO's completions "
            "become decides its time, and nobody knows it before. Run ten steps, and read seconds in metrics.jsonl"
        )
    typed = convert_values(recipe.training, argument_types("sft"), "the training section", SYNONYMS)
    check_argument_bounds(typed)
    check_lora_bounds(recipe.lora or {})
    check_recipe_bounds(recipe.limit, recipe.model_size, recipe.ranks)
    arguments = {one.name: one.default for one in fields(ScaleSFTConfig) if one.default is not MISSING} | typed
    number = count or recipe.ranks or 1
    plan = Plan(recipe, arguments, device, number, sharding or _find_sharding(arguments))
    _refuse_unknown(plan)
    return plan


def _load(paths: Sequence[str | Path], given: Sequence[tuple[str, str]], reads_data: bool) -> Recipe:
    """Raises RecipeError, which names --lengths where it is the data that cannot be found."""
    try:
        return load_recipe(list(paths), given, default_stage="sft")
    except RecipeError as error:
        if not reads_data or not str(error).startswith("data is "):
            raise
        raise RecipeError(
            f"{error}; or give --lengths MEAN,MAX in tokens, such as --lengths 900,4096, and the data are not read"
        ) from error


def _find_sharding(arguments: Mapping[str, Any]) -> str:
    """What the recipe itself says; a launcher's file is named by --sharding."""
    if arguments.get("deepspeed"):
        return f"zero{_zero_stage(arguments['deepspeed'])}"
    return "fsdp2" if arguments.get("fsdp") else "ddp"


def _zero_stage(config: Any) -> int:
    values = config if isinstance(config, Mapping) else parse_json(Path(config).read_text(encoding="utf-8"))
    stage = values.get("zero_optimization", {}).get("stage", 0)
    if stage not in (2, 3):
        raise EstimateError(f"deepspeed has the ZeRO stage {stage}; stages 2 and 3 can be estimated")
    return int(stage)


def _refuse_unknown(plan: Plan) -> None:
    """Raises EstimateError or RecipeError for what is not in the arithmetic."""
    arguments, recipe = plan.arguments, plan.recipe
    if plan.optimizer not in OPTIMIZERS:
        raise EstimateError(
            f"optim is {plan.optimizer!r}, whose state is not known here; known: {', '.join(OPTIMIZERS)}"
        )
    attention = recipe.model_options.get("attn_implementation", "sdpa")
    if attention not in ("sdpa", "flash_attention_2", "flash_attention_3"):
        raise EstimateError(
            f"model_options.attn_implementation is {attention!r}, which keeps all scores; sdpa and flash_attention_2 "
            "can be estimated: leave it out"
        )
    if arguments.get("activation_offloading"):
        raise EstimateError(
            "activation_offloading is true, whose transfers are not estimated; set false for an estimate"
        )
    if plan.count > 1 and plan.device.is_cpu:
        raise EstimateError(f"--count is {plan.count}, but --gpu cpu is this machine alone; leave --count out")
    if recipe.quantization is not None and plan.sharding != "ddp":
        raise RecipeError(
            f"quantization is {recipe.quantization!r}, which training refuses with {plan.sharding}; leave one out"
        )
    if recipe.quantization is not None and recipe.lora is None:
        raise RecipeError(f"quantization is {recipe.quantization!r}, which is trained with lora; add lora: {{}}")
    if plan.autocast == torch.bfloat16 and not plan.device.has_bfloat16 and not plan.device.is_cpu:
        raise EstimateError(f"bf16 is true, but {plan.device.name} does not compute in bfloat16; set bf16: false")
