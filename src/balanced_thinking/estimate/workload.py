"""The micro-batches of a training: those of its own data where it can be read, else samples of given lengths."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from itertools import chain
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

from balanced_thinking.batch.collator import Packing, ScaleCollator
from balanced_thinking.batch.info import BATCH_INFO, BatchInfo
from balanced_thinking.batch.sampling import balance_by_cost, group_by_length
from balanced_thinking.config.errors import UsageError
from balanced_thinking.data.mixture import mix_rows
from balanced_thinking.data.permissions import permit
from balanced_thinking.estimate.pictures import assume_picture, image_token
from balanced_thinking.estimate.plan import Plan
from balanced_thinking.estimate.step import count_supervised
from balanced_thinking.models.parts import without_adapter
from balanced_thinking.models.processor_parts import tokenizer_of
from balanced_thinking.packing.positions import RopeIndex
from balanced_thinking.training.model_checks import load_training_processor
from balanced_thinking.training.splits import TRAINING, read_splits

SAMPLED_ROWS = 128
_ONE_ROW = 2**31
_PROMPT_TOKENS = 64  # of an assumed sample that no loss is computed for, beside its picture
_LEAST_ANSWER = 32  # tokens that a loss is computed for; where a picture leaves fewer, an answer is assumed:
_ASSUMED_ANSWER = 256


class MicroBatch(NamedTuple):
    """One batch as the collator makes it. `tokens`: attended; `places`: with padding; `supervised`: with a target."""

    inputs: dict[str, Any]
    samples: int
    tokens: int
    places: int
    supervised: int


class Workload(NamedTuple):
    """`typical` stands for the time of the micro-batches, `largest` for their memory.

    `rows` of the data, or None; `host_seconds` to prepare a micro-batch, where it was timed; `vocabulary`: tokens that
    the tokenizer knows; `notes` say where it is from.
    """

    typical: MicroBatch
    largest: MicroBatch
    tokens: float  # of a micro-batch, in the mean
    supervised: float
    rows: int | None
    host_seconds: float
    vocabulary: int
    notes: tuple[str, ...]


def find_workload(plan: Plan, model: Any, lengths: tuple[int, int] | None, picture_side: int | None) -> Workload:
    """Of the recipe's own data if `lengths` (mean, longest) is None and it can be read.

    `picture_side`: pixels of an assumed square picture in each sample; None for texts alone.
    """
    if lengths is None:
        try:
            return _measure(plan, model)
        except (UsageError, OSError) as error:
            longest = int(plan.arguments["max_length"] or 4096)
            why = f"every sample is taken to have max_length ({longest:,}) tokens, because its own cannot be counted: "
            return _assume(plan, model, (longest, longest), picture_side, why + str(error)[:160])
    note = f"samples of {lengths[0]:,} tokens in the mean and {lengths[1]:,} at most, as --lengths says"
    return _assume(plan, model, lengths, picture_side, note)


def _measure(plan: Plan, model: Any) -> Workload:
    recipe, arguments = plan.recipe, SimpleNamespace(**plan.arguments)
    processor = load_training_processor(recipe, arguments)
    with permit(urls=recipe.allow_urls):
        seed = arguments.seed if arguments.data_seed is None else arguments.data_seed
        rows = mix_rows(read_splits(recipe, arguments)[0][TRAINING].rows, recipe.data, seed)
        count = min(len(rows), max(SAMPLED_ROWS, plan.micro_batch))
        chosen = random.Random(0).sample(range(len(rows)), count)
        collator = _make_collator(plan, model, processor)
        singles = [(i, batch) for i in chosen if (batch := _collate(collator, [rows[i]]))]
        batches = _divide(plan, [i for i, _ in singles], [one.tokens for _, one in singles])
        began = time.process_time()
        collated = [batch for batch in (_collate(collator, [rows[i] for i in one]) for one in batches) if batch]
        seconds = (time.process_time() - began) / max(1, len(collated))
    if not collated:
        raise UsageError("none of its rows can be used; see balanced sft --dry-run")
    note = f"token lengths of {len(singles):,} random rows of {len(rows):,}, as the collator makes them"
    return _summarize(collated, len(rows), seconds, len(tokenizer_of(processor)), (note,))


def _make_collator(plan: Plan, model: Any, processor: Any) -> ScaleCollator:
    base = without_adapter(model)
    packing = (
        Packing(plan.arguments["pack_tokens"] or _ONE_ROW, RopeIndex.from_model(base))
        if plan.arguments["packing"]
        else None
    )
    collator = ScaleCollator(
        processor,
        plan.arguments["reasoning_format"],
        plan.arguments["max_length"],
        plan.arguments["overflow"],
        multiple if isinstance(multiple := plan.arguments["pad_to_multiple_of"], int) else None,
        packing,
    )
    collator.drop_bad_rows = True
    return collator


def _collate(collator: ScaleCollator, rows: Sequence[Any]) -> MicroBatch | None:
    inputs = collator(rows)
    info: BatchInfo = inputs[BATCH_INFO]
    return _count(inputs, len(rows) - info.dropped) if info.dropped < len(rows) else None


def _count(inputs: dict[str, Any], samples: int) -> MicroBatch:
    lengths = inputs[BATCH_INFO].lengths_by_row
    mask = inputs.get("attention_mask")
    places = inputs["input_ids"].numel()
    tokens = sum(map(sum, lengths)) if lengths is not None else places if mask is None else int(mask.sum())
    return MicroBatch(inputs, samples, tokens, places, count_supervised(inputs))


def _divide(plan: Plan, rows: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Micro-batches as the trainer's sampler makes them of the steps that the rows are enough for."""
    step = plan.micro_batch * plan.accumulation * plan.count
    batches: list[list[int]] = []
    for start in range(0, len(rows), step):
        part = lengths[start : start + step]
        bins = -(-len(part) // plan.micro_batch)
        if len(part) < plan.micro_batch and batches:
            break
        divide = balance_by_cost if plan.arguments["packing"] else group_by_length
        batches += [[rows[start + i] for i in one] for one in divide(part, bins)]
    return batches


def _summarize(
    batches: Sequence[MicroBatch], rows: int | None, seconds: float, vocabulary: int, notes: tuple[str, ...]
) -> Workload:
    mean = sum(one.places for one in batches) / len(batches)
    typical = min(batches, key=lambda one: abs(one.places - mean))
    tokens = sum(one.tokens for one in batches) / len(batches)
    supervised = sum(one.supervised for one in batches) / len(batches)
    return Workload(typical, max(batches, key=_size), tokens, supervised, rows, seconds, vocabulary, notes)


def _size(batch: MicroBatch) -> tuple[int, int]:
    return batch.places, batch.supervised


def _assume(plan: Plan, model: Any, lengths: tuple[int, int], picture_side: int | None, note: str) -> Workload:
    mean, longest = lengths
    limit = plan.arguments["max_length"]
    mean, longest = (min(one, limit) if limit else one for one in (mean, longest))
    others = [mean] * (plan.micro_batch - 1)
    batches = [make_batch(plan, model, [one, *others], picture_side) for one in dict.fromkeys((mean, longest))]
    notes = [note]
    typical = batches[0]
    if any(name.startswith("pixel") for name in typical.inputs):
        notes.append(f"a picture of {picture_side} x {picture_side} pixels in each sample (--picture)")
    if typical.tokens > mean * typical.samples:
        notes.append(
            f"its picture leaves no room for an answer in that: a shorter sample has {_PROMPT_TOKENS} tokens of a "
            f"question and {_ASSUMED_ANSWER} of an answer beside it"
        )
    vocabulary = int(without_adapter(model).config.get_text_config().vocab_size)
    return Workload(typical, batches[-1], typical.tokens, typical.supervised, None, 0.0, vocabulary, tuple(notes))


def make_batch(plan: Plan, model: Any, lengths: Sequence[int], picture_side: int | None) -> MicroBatch:
    """Samples of these lengths, pictures included, as the collator would arrange them."""
    base = without_adapter(model)
    config, tensors, ids, types = base.config, {}, [], []
    shown = picture_side is not None and getattr(config, "vision_config", None) is not None
    picture = assume_picture(config, picture_side or 0, plan.recipe.image_options) if shown else None
    count = picture.tokens if picture else 0
    if picture:
        beside = count + _PROMPT_TOKENS
        lengths = [one if one >= beside + _LEAST_ANSWER else beside + _ASSUMED_ANSWER for one in lengths]
    for length in lengths:
        ids.append([image_token(config)] * count + [5] * (length - count))
        types.append([1] * count + [0] * (length - count))
    if picture:
        tensors = {name: torch.cat([one] * len(lengths)) for name, one in picture.tensors.items()}
    packed = bool(plan.arguments["packing"]) and len(lengths) > 1
    inputs = {**tensors, **_arrange(ids, types, packed, base)}
    free = count + min(_PROMPT_TOKENS, min(lengths) - count - 1)
    labels = inputs["input_ids"].clone()
    inputs["labels"] = _mask_prompts(labels, lengths, free, packed)
    rows = [list(lengths)] if packed else None
    inputs[BATCH_INFO] = BatchInfo(tuple(range(len(lengths))), 0, lengths_by_row=rows)
    return _count(inputs, len(lengths))


def _arrange(ids: list[list[int]], types: list[list[int]], packed: bool, model: Any) -> dict[str, Any]:
    config = model.config
    named = {"gemma3": "token_type_ids"}.get(
        config.model_type, "mm_token_type_ids" if "qwen" in config.model_type else ""
    )
    named = named if getattr(config, "vision_config", None) is not None else ""
    if packed:
        found = {"input_ids": torch.tensor([list(chain.from_iterable(ids))])}
        positions = torch.cat([torch.arange(len(one)) for one in ids])[None]
        mrope = RopeIndex.from_model(model) is not None
        found["position_ids"] = positions.expand(4, 1, -1) if mrope else positions
    else:
        width = max(map(len, ids))
        found = {"input_ids": torch.tensor([one + [0] * (width - len(one)) for one in ids])}
        found["attention_mask"] = torch.tensor([[1] * len(one) + [0] * (width - len(one)) for one in ids])
        types = [one + [0] * (width - len(one)) for one in types]
    if named:
        found[named] = torch.tensor([list(chain.from_iterable(types))] if packed else types)
    return found


def _mask_prompts(labels: Any, lengths: Sequence[int], free: int, packed: bool) -> Any:
    start = 0
    for row, length in enumerate(lengths):
        where = (0, start) if packed else (row, 0)
        labels[where[0], where[1] : where[1] + free] = -100
        if not packed:
            labels[row, length:] = -100
        start += length
    return labels
