"""Checks of a trainer's complete config, a recipe's or a script's: what upstream finds at a step, or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import fields
from functools import partial
from inspect import Parameter, signature
from typing import Any

import torch
from accelerate.utils import ParallelismConfig
from transformers import GenerationConfig, get_scheduler
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.names import did_you_mean
from balanced_thinking.config.types import format_value
from balanced_thinking.training.bounds import check_argument_bounds
from balanced_thinking.training.idle_options import refuse_idle_options

try:
    from transformers.trainer_optimizer import _OPTIMIZER_HANDLERS, OptimizerContext
except ImportError:  # an older transformers, which makes optimizers elsewhere
    _OPTIMIZER_HANDLERS = {}

_INTERVALS = ("logging_steps", "save_steps", "eval_steps")  # upstream has a meaning for 0
# What the trainer gives to every schedule.
_OF_THE_TRAINING = ("optimizer", "num_warmup_steps", "num_training_steps", "last_epoch")
# GRPO's arguments that have names without an enumeration, so that upstream finds a wrong one at the first step.
_NAMES_OF_GRPO: dict[str, tuple[Any, ...]] = {
    "loss_type": ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"),
    "scale_rewards": ("group", "batch", "none"),
    "importance_sampling_level": ("token", "sequence"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    "vllm_mode": ("server", "colocate"),
}

_COUNTS_OF_GRPO = ("num_generations", "max_completion_length")  # TRL declares that they may be None
# Keys of generation_kwargs that have arguments of their own, which losses and messages read.
_OWN_OF_GENERATION = {"max_new_tokens": "max_completion_length"} | {
    name: name for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "cache_implementation")
}
# Others that would change what TRL takes from `generate`, with the value that does not.
_FIXED_OF_GENERATION: dict[str, Any] = {"do_sample": True, "num_return_sequences": 1, "return_dict_in_generate": False}
_FIXED_OF_GENERATION |= {"disable_compile": None, "stop_strings": None, "eos_token_id": None, "pad_token_id": None}


def check_before_upstream(stage: str, args: Any) -> None:
    """Raises RecipeError for a number out of its range, or an option that would do nothing, in a config as given."""
    values = {one.name: getattr(args, one.name, None) for one in fields(args)}
    check_argument_bounds({name: value for name, value in values.items() if value != 0 or name not in _INTERVALS})
    for name in _COUNTS_OF_GRPO if stage == "grpo" else ():
        if values[name] is None:
            raise RecipeError(f"{name} is null; expected a number")
    refuse_idle_options(stage, values)
    _check_parallelism(args.parallelism_config)


def check_after_upstream(stage: str, args: Any) -> None:
    """Raises RecipeError for what can be said once upstream has converted the arguments to their types."""
    _check_accumulation(args.accelerator_config)
    _check_workers(args)
    _check_best(args)
    if stage == "grpo":
        _check_names(args)
        _check_generation(args)
    check_schedule(args)
    _try_optimizer(args)


def _check_parallelism(plan: Any) -> None:
    if plan is not None and not isinstance(plan, ParallelismConfig):
        raise RecipeError(
            f"parallelism_config is {format_value(plan)}; expected accelerate's ParallelismConfig, which only a script "
            "can give. For the command use `accelerate launch` with a configuration of its own"
        )


def _check_accumulation(config: Any) -> None:
    if (count := (config.gradient_accumulation_kwargs or {}).get("num_steps")) is not None:
        raise RecipeError(
            f"accelerator_config.gradient_accumulation_kwargs has num_steps {count}, which would make a step larger "
            "than gradient_accumulation_steps says; leave it out, and set gradient_accumulation_steps"
        )


def _check_workers(args: Any) -> None:
    if args.dataloader_persistent_workers and not args.dataloader_num_workers:
        raise RecipeError(
            "dataloader_persistent_workers is true, but there are no workers; set dataloader_num_workers to at least "
            "1, or leave it out"
        )


def _check_best(args: Any) -> None:
    if args.save_strategy == "best" and args.metric_for_best_model is None:
        raise RecipeError(
            "save_strategy is 'best', but nothing says what is the best; set metric_for_best_model, such as loss"
        )


def _check_names(args: Any) -> None:
    for name, known in _NAMES_OF_GRPO.items():
        if (value := getattr(args, name)) not in known:
            raise RecipeError(f"{name} is {value!r}{did_you_mean(str(value), known)}; known: {', '.join(known)}")
    if args.sync_ref_model and not args.beta:
        raise RecipeError(
            "sync_ref_model is true, but beta is 0, so that there is no reference model; set beta above 0, or leave "
            "sync_ref_model out"
        )


def _check_generation(args: Any) -> None:
    """Of an unknown key `GenerationConfig` makes an attribute, which nothing reads. vLLM has keys of its own."""
    if args.use_vllm or not isinstance(args.generation_kwargs, Mapping):
        return
    known = vars(GenerationConfig())
    for name in args.generation_kwargs:
        if name not in known or name.startswith("_"):
            raise RecipeError(
                f"generation_kwargs has the key {name!r}{did_you_mean(str(name), known)}, which transformers' "
                "GenerationConfig does not have"
            )
    for name, value in args.generation_kwargs.items():
        if (own := _OWN_OF_GENERATION.get(name)) and value != getattr(args, own):
            raise RecipeError(f"generation_kwargs has {name} {format_value(value)}; set {own} instead")
        if name in _FIXED_OF_GENERATION and value != _FIXED_OF_GENERATION[name]:
            raise RecipeError(
                f"generation_kwargs has {name} {format_value(value)}, with which GRPO cannot train; leave it out"
            )


def check_schedule(args: Any) -> None:
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


class _ReadKeys(MutableMapping[str, str]):
    """`optim_args`, with the keys that upstream has read or asked for."""

    def __init__(self, values: dict[str, str]) -> None:
        self.values_by_key, self.read = dict(values), set[str]()

    def __getitem__(self, key: str) -> str:
        self.read.add(key)
        return self.values_by_key[key]

    def __setitem__(self, key: str, value: str) -> None:
        self.values_by_key[key] = value

    def __delitem__(self, key: str) -> None:
        del self.values_by_key[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_key)

    def __len__(self) -> int:
        return len(self.values_by_key)


def _try_optimizer(args: Any) -> None:
    """Make the optimizer and the schedule of the arguments for one number, which raises what their first step would.

    Also raises RecipeError for a key of `optim_args` that the optimizer does not read. An optimizer that is not
    installed, or that needs the model, is left to upstream.
    """
    given = _parse_pairs(args.optim_args)
    if args.optim not in _OPTIMIZER_HANDLERS:
        return
    keys = _ReadKeys(given)
    adam = {"betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon}
    context = OptimizerContext(args, None, {"lr": args.learning_rate}, adam, keys)
    needs_model = any(name in args.optim for name in ("galore", "apollo", "lomo"))
    try:
        made, options = _OPTIMIZER_HANDLERS[args.optim](context)
        _refuse_unread(args.optim, given, keys.read)
        optimizer = None if needs_model else made([torch.nn.Parameter(torch.zeros(1))], **options)
    except RecipeError:
        raise
    except ImportError:
        return
    except (ValueError, TypeError, RuntimeError, AttributeError) as error:
        if needs_model or not _is_of_torch(args.optim):
            return
        raise RecipeError(f"optim {args.optim.value} cannot be made from these arguments: {error}") from error
    if optimizer is None:
        return
    steps = max(args.max_steps, 1)
    make = partial(get_scheduler, args.lr_scheduler_type, optimizer, args.get_warmup_steps(steps), steps)
    try:
        make(scheduler_specific_kwargs=dict(args.lr_scheduler_kwargs or {}))
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise RecipeError(
            f"lr_scheduler_type {args.lr_scheduler_type.value} cannot be made from learning_rate "
            f"{args.learning_rate:g} and lr_scheduler_kwargs {args.lr_scheduler_kwargs or {}}: {error}"
        ) from error


def _is_of_torch(optim: Any) -> bool:
    """Whether the optimizer is made of torch or transformers alone, so that one number is a fair test."""
    return optim in ("adamw_torch", "adamw_torch_fused", "sgd", "adagrad", "rmsprop", "adafactor")


def _parse_pairs(text: str | None) -> dict[str, str]:
    """As upstream does. Raises RecipeError for what is not name=value pairs."""
    pairs = [one.split("=") for one in (text or "").replace(" ", "").split(",") if text]
    if any(len(pair) != 2 for pair in pairs):
        raise RecipeError(f"optim_args is {text!r}; expected name=value pairs, such as momentum=0.9 for sgd")
    return {pair[0]: pair[1] for pair in pairs}


def _refuse_unread(optim: Any, given: Mapping[str, str], read: set[str]) -> None:
    for name in given:
        if name in read:
            continue
        known = ", ".join(sorted(read)) or "none (adam_beta1, adam_epsilon and weight_decay are arguments themselves)"
        raise RecipeError(
            f"optim_args has {name!r}{did_you_mean(name, sorted(read))}, which optim {optim.value} does not read; "
            f"known: {known}"
        )
