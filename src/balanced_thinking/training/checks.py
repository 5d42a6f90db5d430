"""Checks of a recipe before anything is imported or loaded: no torch, under a second."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.names import did_you_mean
from balanced_thinking.config.source import SourceError, dict_keys
from balanced_thinking.config.types import AdmittedTypes, convert_values, format_value
from balanced_thinking.data.load import stream_data
from balanced_thinking.data.mixture import validation_data
from balanced_thinking.models.find import check_model
from balanced_thinking.training.adapter_checks import check_adapter
from balanced_thinking.training.algorithms import algorithm_arguments
from balanced_thinking.training.arguments import OPTIONS, SYNONYMS, argument_types
from balanced_thinking.training.auto_batch import refuse_inexact_division
from balanced_thinking.training.best_checks import check_best
from balanced_thinking.training.bounds import check_argument_bounds, check_recipe_bounds
from balanced_thinking.training.launcher import launched_precision
from balanced_thinking.training.part_checks import check_quantization_and_freezing
from balanced_thinking.training.recipe import STAGES, Recipe

# Argument -> the package that it needs, and how to install it.
_NEEDS = {
    "use_vllm": ("vllm", "pip install 'balanced-thinking[vllm]'"),
    "deepspeed": ("deepspeed", "pip install 'balanced-thinking[deepspeed]'"),
    "use_liger_kernel": ("liger_kernel", "pip install liger-kernel"),
}

# Part of an optimizer's name -> its package; the first match counts.
_OPTIMIZERS = (
    ("galore", "galore_torch"),
    ("apollo", "apollo_torch"),
    ("lomo", "lomo_optim"),
    ("grokadamw", "grokadamw"),
    ("stable_adamw", "optimi"),
    ("schedule_free", "schedulefree"),
    ("npu", "torch_npu"),
    ("apex", "apex"),
    ("xla", "torch_xla"),
    ("anyprecision", "torchdistx"),
    ("torch_4bit", "torchao"),
    ("torch_8bit", "torchao"),
    ("bnb", "bitsandbytes"),
    ("8bit", "bitsandbytes"),
    ("paged", "bitsandbytes"),
    ("lion", "bitsandbytes"),
    ("ademamix", "bitsandbytes"),
)
_DISTRIBUTIONS = {"optimi": "torch-optimi"}  # where the distribution has another name than the package
_LAYERWISE = ("galore_torch", "apollo_torch")
_DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")
_DTYPE_SYNONYMS = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "float": "float32"}
_PAIRS = re.compile(r"\s*\w+\s*=[^,=]+(,\s*\w+\s*=[^,=]+)*")
# Arguments and the value with which they need regular evaluations.
_NEED_INTERVAL = (
    ("load_best_model_at_end", True),
    ("save_strategy", "best"),
    ("lr_scheduler_type", "reduce_lr_on_plateau"),
)
_SAMPLE = "sample:"  # the start of a value of `preflight`
_MOST_DIGITS = 12  # of its number
_EXTRAS = ("tensorboard", "trackio", "wandb")  # of this distribution


def check_settings(recipe: Recipe) -> dict[str, Any]:
    """The recipe's training arguments, converted to their types.

    Raises RecipeError for an impossible name, value or combination in the recipe or the arguments.
    """
    if recipe.stage not in STAGES:
        raise RecipeError(f"stage is {recipe.stage!r}{did_you_mean(recipe.stage, STAGES)}; known: {', '.join(STAGES)}")
    arguments = check_arguments(recipe.stage, recipe.training)
    check_recipe_bounds(recipe.limit, recipe.model_size, recipe.ranks)
    if recipe.on_bad_row not in ("error", "drop"):
        raise RecipeError(f"on_bad_row is {recipe.on_bad_row!r}; expected error or drop")
    read_sample_size(recipe.preflight)
    _check_model_options(recipe.model_options)
    _refuse_unread_arguments(recipe, arguments)
    check_quantization_and_freezing(recipe, arguments)
    check_adapter(recipe.lora or {})
    _check_evaluation(recipe, arguments)
    check_best(recipe.stage, arguments)
    refuse_inexact_division(recipe.auto_batch, arguments)
    return arguments


def _refuse_unread_arguments(recipe: Recipe, arguments: Mapping[str, Any]) -> None:
    """Of a recipe, the model is loaded before there is a trainer. GRPO's loads a reference model, but not for LoRA."""
    if (weights := arguments.get("reward_weights")) is not None:
        raise RecipeError(
            f"reward_weights is {format_value(weights)}, but a recipe names its rewards; set rewards: {{name: weight}}"
        )
    beta = arguments.get("beta")
    beta = algorithm_arguments(arguments.get("algorithm")).get("beta") if beta is None else beta
    has_reference = recipe.stage == "grpo" and recipe.lora is None and beta
    if (given := arguments.get("model_init_kwargs")) and not has_reference:
        raise RecipeError(
            f"model_init_kwargs is {format_value(given)}, but would do nothing: model_options load the model. "
            "Set --model_options.NAME instead"
        )
    if recipe.lora is not None and arguments.get("sync_ref_model"):
        raise RecipeError(
            "sync_ref_model is true, but with lora the reference model is the base, which does not move; leave one of "
            "them out"
        )


def read_sample_size(preflight: str | int) -> int | None:
    """The number of rows in `sample:N`; None for `all`. Raises RecipeError for anything else."""
    if preflight == "all":
        return None
    preflight = str(preflight)
    number = preflight.removeprefix(_SAMPLE)
    if not preflight.startswith(_SAMPLE) or not number.isdecimal() or len(number) > _MOST_DIGITS or int(number) < 1:
        raise RecipeError(f"preflight is {preflight[:80]!r}; expected all, or sample:N for N rows, such as sample:1000")
    return int(number)


def check_arguments(stage: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """As `check_settings`, for the training arguments alone."""
    arguments = convert_values(values, argument_types(stage), "the training section", SYNONYMS)
    check_argument_bounds(arguments)
    _check_steps(arguments)
    _check_precision(arguments)
    _check_reporting(arguments.get("report_to"))
    _check_mappings(arguments, argument_types(stage))
    _check_texts(arguments)
    for name, (package, how) in _NEEDS.items():
        if arguments.get(name) and find_spec(package) is None:
            raise RecipeError(f"{name} is {format_value(arguments[name])}, but {package} is not installed: {how}")
    options = OPTIONS[stage]
    try:
        options(**{name: arguments[name] for name in options.__dataclass_fields__ if name in arguments}).check_options()
    except ValueError as error:
        raise RecipeError(str(error)) from error
    return arguments


def _check_steps(arguments: Mapping[str, Any]) -> None:
    """Refuse counts of steps that upstream would misread: to it, every max_steps below 1 means none, as -1 does."""
    for name in ("logging_steps", "save_steps", "eval_steps"):
        value = arguments.get(name) or 1
        if value > 1 and not float(value).is_integer():
            raise RecipeError(f"{name} is {value:g}; expected an integer, or a share of the training below 1")
    steps = arguments.get("max_steps", -1)
    if steps < 1 and steps != -1:
        raise RecipeError(f"max_steps is {steps}; expected at least 1, or leave it out and set num_train_epochs")


def _check_mappings(arguments: Mapping[str, Any], types: Mapping[str, AdmittedTypes]) -> None:
    """Where a mapping is expected, text must be JSON or, for a configuration, a file; a format also has a name."""
    for name, value in arguments.items():
        if name == "reasoning_format" or not isinstance(value, str) or dict not in types[name] or value.startswith("{"):
            continue
        if name.endswith("kwargs"):
            raise RecipeError(f"{name} is {value!r}; expected a mapping, such as --{name}.key value")
        if not Path(value).is_file():
            raise RecipeError(f"{name} is {value!r}, and there is no such file; expected a file or a mapping")


def _check_texts(arguments: Mapping[str, Any]) -> None:
    if (pairs := arguments.get("optim_args")) and not _PAIRS.fullmatch(pairs):
        raise RecipeError(f"optim_args is {pairs!r}; expected name=value pairs, such as momentum=0.9 for sgd")
    template = arguments.get("chat_template_path") or ""
    if template.endswith((".jinja", ".j2")) and not Path(template).is_file():
        raise RecipeError(f"chat_template_path is {template!r}; there is no such file")
    package = next((package for part, package in _OPTIMIZERS if part in arguments.get("optim", "")), None)
    if package is not None and find_spec(package) is None:
        name = _DISTRIBUTIONS.get(package, package.replace("_", "-"))
        raise RecipeError(f"optim is {arguments['optim']!r}, but {package} is not installed: pip install {name}")
    if package in _LAYERWISE and not arguments.get("optim_target_modules"):
        raise RecipeError(
            f"optim is {arguments['optim']!r}, which needs the layers that it works on; set optim_target_modules, such "
            "as --optim_target_modules all-linear"
        )


def _check_model_options(options: Mapping[str, Any]) -> None:
    """Check the options of `from_pretrained` whose values have names."""
    dtype = options.get("dtype")
    if isinstance(dtype, str) and dtype not in _DTYPES:
        hint = did_you_mean(dtype, _DTYPES, _DTYPE_SYNONYMS)
        raise RecipeError(f"model_options.dtype is {dtype!r}{hint}; known: {', '.join(_DTYPES)}")
    flash = options.get("attn_implementation") == "flash_attention_2"
    if flash and not any(find_spec(package) for package in ("flash_attn", "kernels")):
        raise RecipeError(
            "model_options.attn_implementation is 'flash_attention_2', but neither flash-attn nor kernels is "
            "installed: pip install kernels, or leave it out"
        )


def _check_precision(arguments: Mapping[str, Any]) -> None:
    for suffix in ("", "_full_eval"):
        if arguments.get(f"bf16{suffix}") and arguments.get(f"fp16{suffix}"):
            raise RecipeError(f"bf16{suffix} and fp16{suffix} are both true; expected one of them: leave the other out")
    launched_precision(arguments.get("bf16"), arguments.get("fp16"))


def _check_evaluation(recipe: Recipe, arguments: Mapping[str, Any]) -> None:
    """Evaluations during training need a split, and most of them a regular interval."""
    strategy, saving = arguments.get("eval_strategy", "no"), arguments.get("save_strategy", "steps")
    need_interval = [
        f"{name} is {format_value(value)}" for name, value in _NEED_INTERVAL if arguments.get(name) == value
    ]
    asks = [f"eval_strategy is {strategy!r}"] if strategy != "no" else []
    asks += ["eval_on_start is true"] if arguments.get("eval_on_start") else []
    if (asks := asks + need_interval) and recipe.validation_split is None:
        raise RecipeError(
            f"{asks[0]}, but there is no data to evaluate on; name a split of the data with --validation_split, or "
            "leave that out"
        )
    if need_interval and strategy == "no":
        raise RecipeError(f"{need_interval[0]}, but eval_strategy is 'no'; set it to steps or epoch")
    if arguments.get("load_best_model_at_end") and saving not in (strategy, "best"):
        raise RecipeError(
            f"load_best_model_at_end is true, but save_strategy is {saving!r} and eval_strategy is {strategy!r}; set "
            "both to the same, or save_strategy to best"
        )


def check_places(recipe: Recipe) -> None:
    """Raises UsageError for a model, a data set or a data option that does not exist; reads none of them."""
    check_model(recipe.pinned_model)
    stream_data(recipe.data, split=recipe.split, options=recipe.data_options)
    if recipe.validation_split:
        stream_data(validation_data(recipe.data), split=recipe.validation_split, options=recipe.validation_options)


def _check_reporting(names: str | list[str] | None) -> None:
    """Metrics can go where transformers can send them; our own extras must be installed."""
    try:
        known = dict_keys("transformers", "integrations/integration_utils.py", "INTEGRATION_TO_CALLBACK")
    except SourceError:
        return  # transformers itself refuses unknown ones, later
    for name in [names] if isinstance(names, str) else names or ():
        if name not in (*known, "none", "all"):
            shown = ", ".join(sorted(known))
            raise RecipeError(f"report_to is {name!r}{did_you_mean(str(name), known)}; known: none, all, {shown}")
        if name in _EXTRAS and find_spec(name) is None:
            raise RecipeError(f"report_to is {name!r}, which is not installed: pip install 'balanced-thinking[{name}]'")
