"""What a training would do, from its recipe, its data and the model's configuration: `--dry-run`.

No weight is loaded and no step is taken. Settings and rows are checked as before a training, and raise the same errors.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peft import get_peft_model

from balanced_thinking.batch.row_check import RowLengths
from balanced_thinking.data.mixture import describe_data
from balanced_thinking.data.permissions import permit
from balanced_thinking.loss.weightings import Progress
from balanced_thinking.models.find import TinySize
from balanced_thinking.models.freezing import freeze_parts
from balanced_thinking.models.outline import outline_model
from balanced_thinking.models.parts import ModelParts, short_count
from balanced_thinking.models.quantization import BITS
from balanced_thinking.training.auto_batch import refuse_several_ranks
from balanced_thinking.training.best_checks import refuse_no_evaluation
from balanced_thinking.training.checked_data import CheckedData, CheckedSplit, load_checked_data, make_row_checker
from balanced_thinking.training.header import (
    count_parameters,
    describe_autocast,
    describe_batch,
    describe_device,
    describe_rewards,
    describe_weighting,
)
from balanced_thinking.training.lora import describe_lora, make_lora_config
from balanced_thinking.training.model_checks import load_training_processor
from balanced_thinking.training.own_rewards import try_own_rewards
from balanced_thinking.training.recipe import Recipe
from balanced_thinking.training.sample_order import refuse_no_step
from balanced_thinking.training.stages import training_arguments
from balanced_thinking.training.trained_parameters import refuse_bias_without_base, refuse_nothing_to_train
from balanced_thinking.training.weighing import TokenWeigher

_MEASURED_ROWS = 1000  # a random sample of this size gives the lengths


def describe_training(recipe: Recipe, out: Path) -> str:
    """The plan of a training, a line for each of its parts.

    Writes nothing, except that the result of the check of the rows is kept, as a training keeps it for the next start.
    Raises what `train` raises before it loads weights: for settings, a model without processor, and rows.
    """
    with permit(urls=recipe.allow_urls):
        args = training_arguments(recipe, out)
        refuse_several_ranks(recipe.auto_batch, recipe.ranks or args.world_size)
        processor = load_training_processor(recipe, args)
        data = load_checked_data(recipe, args, processor, out, resume=False)
        try_own_rewards(args, data.training.rows, processor)
        refuse_no_step(recipe.stage, args, data.training.rows, recipe.ranks)
        lines = [*_describe_model(recipe), ("device", _describe_device(recipe, args))]
        lines.append(("data", f"{describe_data(recipe.data)}, {recipe.split}: {_describe_split(data.training)}"))
        lines.append(("lengths", _describe_lengths(recipe, args, processor, data.training.rows)))
        lines += [*_describe_steps(recipe, args, data), ("writes", f"{out} (a dry run: nothing was started)")]
    return "\n".join(f"{name:<9} {text}" for name, text in lines)


def _describe_model(recipe: Recipe) -> Iterator[tuple[str, str]]:
    model = outline_model(recipe.pinned_model, size=TinySize(**recipe.model_size) if recipe.model_size else None)
    total = count_parameters(model).total
    parts = ", ".join(f"{part} {short_count(count)}" for part, count in ModelParts(model).count_parameters().items())
    yield "model", f"{recipe.model} ({type(model).__name__}), {short_count(total)} parameters: {parts}"
    how = "all parameters"
    if recipe.freeze:
        freeze_parts(model, recipe.freeze)
        how = f"all except the frozen parts {', '.join(recipe.freeze)}"
    if recipe.quantization is not None:
        layers, bits = len(ModelParts(model).linear_layers(["language"])), BITS[recipe.quantization]
        yield "quantized", f"{recipe.quantization}: {layers} linear layers of the language model in {bits} bits"
    if recipe.lora is not None:
        lora = make_lora_config(model, recipe.lora)
        how = f"LoRA: {describe_lora(recipe.lora, lora)}"
        with torch.device("meta"):
            model = get_peft_model(model, lora)
        refuse_bias_without_base(model)
    refuse_nothing_to_train(model)
    trainable = count_parameters(model).trainable
    yield "trains", f"{short_count(trainable)} parameters ({100 * trainable / total:.3g} % of the model's), {how}"


def _describe_device(recipe: Recipe, args: Any) -> str:
    dtype = recipe.model_options.get("dtype", "float32")
    return f"{describe_device(args.device)}, weights in {dtype}{describe_autocast(args)}"


def _describe_steps(recipe: Recipe, args: Any, data: CheckedData) -> Iterator[tuple[str, str]]:
    rows, ranks = len(data.training.rows), recipe.ranks or args.world_size
    steps = count_steps(recipe.stage, args, rows, ranks)
    yield "batch", describe_batch(recipe.stage, args, ranks)
    passes = steps / _steps_of_one_pass(recipe.stage, args, rows, ranks)
    warm_up = f"the first {count:,} of them warm-up" if (count := args.get_warmup_steps(steps)) else "no warm-up"
    yield "steps", f"{steps:,}, {warm_up}, {passes:.3g} times through the data"
    refuse_no_evaluation(args, steps, passes)
    yield "weights", _describe_weights(recipe.stage, args, steps)
    if recipe.stage == "grpo":
        yield "rewards", describe_rewards(args)
    yield "evaluates", _describe_evaluation(recipe, args, data.validation)
    yield "saves", _describe_interval(args.save_strategy, args.save_steps, _describe_kept(args))


def _describe_split(split: CheckedSplit) -> str:
    counts = Counter(name for bad in split.record["bad_rows"] for name in bad["problems"])
    reasons = [f"{name} {count}" for name, count in counts.most_common()]
    reasons += [f"too_long {split.too_long} (overflow)"] if split.too_long else []
    left_out = f", {split.dropped + split.too_long:,} left out ({', '.join(reasons)})" if reasons else ", none left out"
    return f"{len(split.rows):,} rows{left_out}"


def _describe_lengths(recipe: Recipe, args: Any, processor: Any, rows: Any) -> str:
    checker = make_row_checker(recipe, args, processor)
    chosen = sorted(random.Random(0).sample(range(len(rows)), min(len(rows), _MEASURED_ROWS)))
    found = [lengths for index in chosen if (lengths := checker.measure_row(rows[index])) is not None]
    totals = sorted(one.total for one in found)
    most = totals[max(0, math.ceil(0.95 * len(totals)) - 1)]
    what = "sample" if recipe.stage == "sft" else "prompt"
    limit = args.max_length if recipe.stage == "sft" else None
    allowed = f", at most {limit:,} allowed" if limit else ""
    sampled = f", of {len(found):,} random rows" if len(chosen) < len(rows) else ""
    text = f"{median(totals):,.0f} tokens a {what} in the median, {most:,} at 95 %, {totals[-1]:,} the longest"
    return f"{text}{allowed}{sampled}{_describe_ratio(found)}"


def _describe_ratio(found: Sequence[RowLengths]) -> str:
    reasoned = [one for one in found if one.think]
    if not reasoned:
        return ""
    think, answer = (median(getattr(one, name) for one in reasoned) for name in ("think", "answer"))
    ratio = median(one.think / max(1, one.answer) for one in reasoned)
    return f"; reasoning {think:,.0f}, answer {answer:,.0f}, ratio {ratio:.3g}"


def count_steps(stage: str, args: Any, rows: int, ranks: int | None = None) -> int:
    """The optimizer steps of a training on this many rows, as its trainer will count them.

    `ranks` are those that it will have, where they are others than those of this process.
    """
    if args.max_steps > 0:
        return int(args.max_steps)
    return math.ceil(args.num_train_epochs * _steps_of_one_pass(stage, args, rows, ranks or args.world_size))


def _steps_of_one_pass(stage: str, args: Any, rows: int, ranks: int) -> int:
    """The last step of a pass may have fewer rows than the others."""
    samples = rows
    if stage == "grpo":  # complete generations only, each row as often as it is used
        prompts = args.generation_batch_size * ranks // args.world_size // args.num_generations
        samples = rows // prompts * prompts * args.num_generations * args.num_iterations
    batches = samples / (args.per_device_train_batch_size * ranks)
    count = math.floor(batches) if args.dataloader_drop_last else math.ceil(batches)
    return max(1, math.ceil(count / args.gradient_accumulation_steps))


def _describe_weights(stage: str, args: Any, steps: int) -> str:
    if stage == "grpo":
        if args.credit == "completion":
            return "one advantage for all tokens of a completion (credit: completion)"
        weights = {step: args.credit_schedule().weights(_share(step, steps)) for step in _three_steps(steps)}
        return _join_weights({step: (one.think, one.answer) for step, one in weights.items()})
    weigher = TokenWeigher(args)
    latest = args.adaptive_latest if args.schedule == "adaptive" else None
    found = {step: weigher.step_weights(Progress(_share(step, steps), latest)) for step in _three_steps(steps)}
    if all(one.is_plain for one in found.values()):
        return describe_weighting(args)
    note = f"; adaptive: moves from step {math.ceil(latest * steps):,} at the latest" if latest else ""
    return _join_weights({step: (one.think, one.answer) for step, one in found.items()}) + note


def _join_weights(found: dict[int, tuple[float, float]]) -> str:
    texts = [f"{think:.3g} / {answer:.3g} at step {step:,}" for step, (think, answer) in found.items()]
    return f"reasoning / answer {', '.join(texts)}"


def _three_steps(steps: int) -> list[int]:
    """The first, the middle and the last one, counted from 1."""
    return sorted({1, (steps + 1) // 2, steps})


def _share(step: int, steps: int) -> float:
    return (step - 1) / max(1, steps - 1)


def _describe_evaluation(recipe: Recipe, args: Any, validation: CheckedSplit | None) -> str:
    if validation is None:
        return "never during training (no validation_split)"
    split = f"{recipe.validation_split}: {_describe_split(validation)}"
    if count := getattr(args, "validation_generate", 0):
        split += f"; {min(count, len(validation.rows)):,} of them are answered"
    if patience := getattr(args, "early_stopping_patience", None):
        split += f"; ends after {patience} without a better {args.metric_for_best_model}"
    return _describe_interval(args.eval_strategy, args.eval_steps, split)


def _describe_interval(strategy: Any, steps: float | None, what: str) -> str:
    name = getattr(strategy, "value", strategy)
    if name == "no":
        return "never"
    share = f"every {steps:g} of the training" if steps and steps < 1 else f"every {steps or 0:,.0f} steps"
    when = {"steps": share, "epoch": "after every epoch", "best": "at every new best evaluation"}[name]
    return f"{when}, {what}"


def _describe_kept(args: Any) -> str:
    kept = f"the newest {args.save_total_limit} are kept" if args.save_total_limit else "all are kept"
    best = f"; the best by {args.metric_for_best_model} is the final model" if args.load_best_model_at_end else ""
    return kept + best
