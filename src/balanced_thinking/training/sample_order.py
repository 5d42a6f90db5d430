"""In which order a training sees its samples: in SFT each optimizer step has the same ones on any number of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from datasets import Dataset
from torch.utils.data import RandomSampler, Sampler, SequentialSampler
from trl.trainer.utils import RepeatSampler

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.batch.sampling import LengthEstimator, LengthSampler, StepSampler
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.training.streams import refuse_dropping_of_stream


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


class EpochSeededSampler(RepeatSampler):
    """TRL's sampler with an order that depends on seed and epoch only.

    TRL's own starts from its first order again when a run is resumed in a later epoch.
    """

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        if self.shuffle:
            self.generator.manual_seed(self.seed + self.epoch)
        return super().__iter__()


def order_seed(args: Any) -> int:
    """The seed of the order of the data: `data_seed`, or `seed` where it is null."""
    return int(args.seed if args.data_seed is None else args.data_seed)


def refuse_no_step(stage: str, args: Any, rows: Any, ranks: int | None = None) -> None:
    """Raises RecipeError for data of which a training would take no step. `ranks`: other ones than now."""
    ranks = ranks or args.world_size
    if stage == "sft":
        refuse_no_micro_batch(rows, args, ranks)
    else:
        refuse_no_generation(rows, args, args.generation_batch_size * ranks // args.world_size)


def refuse_no_micro_batch(dataset: Any, args: Any, ranks: int) -> None:
    """Raises RecipeError for data of which `dataloader_drop_last` leaves nothing: no step would be taken.

    Upstream would end such a training at once, and call it finished. A stream has no length to compare.
    """
    if not hasattr(dataset, "__len__"):
        refuse_dropping_of_stream(dataset, args)
        return
    rows, batch = len(dataset), args.per_device_train_batch_size
    batch *= 1 if args.accelerator_config.split_batches else ranks
    if args.dataloader_drop_last and rows < batch:
        raise RecipeError(
            f"dataloader_drop_last is true, and the {rows} rows of the data are fewer than the {batch} of a batch "
            "(of all ranks), so no step would be taken; lower per_device_train_batch_size, or leave "
            "dataloader_drop_last out"
        )


def refuse_no_generation(dataset: Any, args: Any, generation_batch: int) -> None:
    """Raises RecipeError for fewer rows than a generation has prompts: the sampler would leave all of them out.

    `generation_batch`: completions of a generation, on all ranks.
    """
    prompts = generation_batch // args.num_generations
    if hasattr(dataset, "__len__") and len(dataset) < prompts:
        raise RecipeError(
            f"{len(dataset)} rows are fewer than the {prompts} prompts of one generation (generation_batch_size "
            f"{generation_batch} / num_generations {args.num_generations}), so no step would be taken; lower "
            "per_device_train_batch_size or steps_per_generation"
        )


def _choose_order(dataset: Dataset, lengths: LengthEstimator, args: Any, step: int, *, packed: bool) -> Sampler:
    """`step`: samples of an optimizer step, over all ranks."""
    strategy, cannot_pack = args.train_sampling_strategy, args.packing and not packed
    if strategy == "sequential":
        return SequentialSampler(dataset)
    if strategy == "group_by_length" or (cannot_pack and strategy == "random"):
        return LengthSampler(step, lengths(range(len(dataset))), order_seed(args))
    return RandomSampler(dataset)
