"""In which order an SFT training sees its samples: each optimizer step has the same ones on any number of ranks."""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from torch.utils.data import RandomSampler, Sampler, SequentialSampler

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.batch.sampling import LengthEstimator, LengthSampler, StepSampler


def make_sampler(trainer: Any, dataset: Dataset, *, packed: bool) -> Sampler:
    """The sampler of a trainer's data set by its `train_sampling_strategy`.

    On several ranks every strategy goes through a `StepSampler`: accelerate's own division would fill an epoch's last
    step with samples that came before. `packed`: whether samples share rows.
    """
    args, accelerator = trainer.args, trainer.accelerator
    lengths = LengthEstimator(dataset, trainer.processing_class)
    batch, accumulation, ranks = trainer._train_batch_size, args.gradient_accumulation_steps, accelerator.num_processes
    order = _choose_order(dataset, lengths, args, batch * accumulation * ranks, packed=packed)
    accelerate_divides = accelerator.split_batches or accelerator.dispatch_batches
    if accelerate_divides or (ranks == 1 and not isinstance(order, RandomSampler)):
        return order
    takes_empty = isinstance(trainer.data_collator, ScaleCollator)
    return StepSampler(
        order,
        lengths,
        batch,
        accumulation,
        ranks,
        accelerator.process_index,
        packed=packed,
        last_step="drop" if args.dataloader_drop_last else "keep" if takes_empty else "repeat",
    )


def _choose_order(dataset: Dataset, lengths: LengthEstimator, args: Any, step: int, *, packed: bool) -> Sampler:
    """`step`: samples of an optimizer step, over all ranks."""
    strategy, cannot_pack = args.train_sampling_strategy, args.packing and not packed
    if strategy == "sequential":
        return SequentialSampler(dataset)
    if strategy == "group_by_length" or (cannot_pack and strategy == "random"):
        return LengthSampler(step, lengths(range(len(dataset))), args.seed)
    return RandomSampler(dataset)
