"""Which samples share a micro-batch: chosen by length, without tokenizing a text or decoding an image.

The loss of an optimizer step does not depend on how its samples are divided among micro-batches and ranks. So
`StepSampler` is free to divide them. `LengthSampler` also decides which samples make up a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from heapq import heappop, heappush
from itertools import accumulate, cycle, islice, pairwise
from typing import Any, Literal

import pyarrow as pa
import torch
from datasets import Dataset
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import BatchRebalanceSampler, LengthGroupedSampler

from balanced_thinking.batch.messages import row_images
from balanced_thinking.data.images import image_size
from balanced_thinking.data.picture_files import UNREADABLE

_TEXT_COLUMNS = ("messages", "prompt", "completion")
_IMAGE_COLUMNS = ("image", "images")
_CHARACTERS_PER_TOKEN = 4


class LengthEstimator:
    """Estimates the tokens of dataset rows: texts by their characters, images by the size in the file's header.

    Args:
        dataset: in TRL's columns.
        processor: the model's. If it cannot say how many tokens an image has, images count as 0.
    """

    def __init__(self, dataset: Dataset, processor: Any) -> None:
        self._rows = dataset.with_format("arrow")  # as stored, so that no image is decoded
        self._names = [name for name in (*_TEXT_COLUMNS, *_IMAGE_COLUMNS) if name in dataset.column_names]
        self._count_multimodal = getattr(processor, "_get_num_multimodal_tokens", None)

    def __call__(self, indices: Sequence[int]) -> list[int]:
        table = self._rows[list(indices)]
        columns = {name: table.column(name) for name in self._names}
        rows = [{name: _scalar_to_python(column[i]) for name, column in columns.items()} for i in range(len(table))]
        tokens = [
            sum(_count_characters(row.get(name)) for name in _TEXT_COLUMNS) // _CHARACTERS_PER_TOKEN for row in rows
        ]
        sides = [
            (i, side) for i, row in enumerate(rows) for image in row_images(row) if (side := _read_height_width(image))
        ]
        for (i, _), image_tokens in zip(sides, self._count_image_tokens([side for _, side in sides]), strict=True):
            tokens[i] += image_tokens
        return tokens

    def _count_image_tokens(self, sides: Sequence[tuple[int, int]]) -> list[int]:
        """For images of these heights and widths. One call for all, because each call is slow."""
        if self._count_multimodal is not None and sides:
            try:
                return self._count_multimodal(image_sizes=sides).num_image_tokens
            except ValueError:  # a size that the processor refuses; the collator names its row
                return [self._count_tokens_of_one(side) for side in sides]
            except (AttributeError, LookupError, TypeError):  # an estimate must not stop a run
                pass
        return [0] * len(sides)

    def _count_tokens_of_one(self, side: tuple[int, int]) -> int:
        if self._count_multimodal is not None:
            with suppress(ValueError):
                return self._count_multimodal(image_sizes=[side]).num_image_tokens[0]
        return 0


def _read_height_width(image: Any) -> tuple[int, int] | None:
    """Height and width in pixels; None for a file that cannot be read, which the collator reports."""
    if isinstance(image, Mapping):  # as `datasets` stores it
        image = image.get("path") if image.get("bytes") is None else image["bytes"]
    try:
        return image_size(image)[::-1]
    except (AttributeError, TypeError, *UNREADABLE):
        return None


def _scalar_to_python(value: pa.Scalar) -> Any:
    """The value in Python, but bytes as a file: then only the beginning of an image is read, from disk too."""
    if not value.is_valid or isinstance(value, pa.StringScalar):
        return value.as_py()
    if isinstance(value, pa.ListScalar):
        return [_scalar_to_python(part) for part in value]
    if isinstance(value, pa.StructScalar):
        return {name: _scalar_to_python(part) for name, part in value.items()}
    return pa.BufferReader(value.as_buffer()) if isinstance(value, pa.BinaryScalar) else value.as_py()


def _count_characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(_count_characters(part) for key, part in value.items() if key in ("content", "text"))
    return sum(map(_count_characters, value)) if isinstance(value, Sequence) else 0


def balance_by_cost(costs: Sequence[float], bins: int) -> list[list[int]]:
    """Bins of indices with nearly equal total cost; bin sizes differ by at most one.

    The most expensive comes first, each into the cheapest bin that has room.
    """
    dealt: list[list[int]] = [[] for _ in range(bins)]
    size, larger = divmod(len(costs), bins)  # `larger` bins take one more
    totals = [(0.0, b) for b in range(bins)]
    for index in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        total, chosen = heappop(totals)
        while len(dealt[chosen]) == size and not larger:
            total, chosen = heappop(totals)
        larger -= len(dealt[chosen]) == size
        dealt[chosen].append(index)
        if len(dealt[chosen]) <= size:
            heappush(totals, (total + costs[index], chosen))
    return dealt


def group_by_length(lengths: Sequence[int], bins: int) -> list[list[int]]:
    """Bins of indices of similar length, cut from the longest to the shortest; bin sizes differ by at most one."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    sizes = (len(order) // bins + (b < len(order) % bins) for b in range(bins))
    return [order[start:stop] for start, stop in pairwise(accumulate(sizes, initial=0))]


class StepSampler(BatchRebalanceSampler):
    """Micro-batches of one rank, divided by length.

    An optimizer step has the samples that one process would give it, so a rank may get none in an epoch's last step.
    Only their division among micro-batches and ranks changes, so that no rank waits long for another:

    - packed micro-batches get about the same number of tokens;
    - padded ones get samples of similar length, so that there is little padding;
    - a step with a single micro-batch stays as it is.

    transformers' Trainer accepts a batch sampler of this base class. accelerate seeds the order of its `sampler`, and
    sets the epoch.

    Args:
        sampler: the order of the samples.
        lengths: indices -> estimated tokens of each.
        batch_size: samples of a micro-batch.
        accumulation: micro-batches of a step on each of `ranks`.
        packed: whether rows are packed, so that a micro-batch costs the sum of its lengths, without padding.
        last_step: what happens to an epoch's last step where it is smaller: it is kept, its last incomplete
            micro-batches are dropped, or a rank without a sample repeats one, for collators that take no empty batch.
    """

    def __init__(  # the base's own is not called, as nothing of it is used
        self,
        sampler: Sampler[int],
        lengths: Callable[[Sequence[int]], Sequence[int]],
        batch_size: int,
        accumulation: int,
        ranks: int = 1,
        rank: int = 0,
        *,
        packed: bool,
        last_step: Literal["keep", "drop", "repeat"] = "keep",
    ) -> None:
        self.sampler, self.lengths = sampler, lengths
        self._round, self._accumulation, self._ranks, self.rank = batch_size * ranks, accumulation, ranks, rank
        self._packed, self._repeat = packed, last_step == "repeat"
        self.drop_last = last_step == "drop"

    def __len__(self) -> int:
        return self._count_micro_batches(len(self.sampler))  # type: ignore[arg-type]

    def _count_micro_batches(self, samples: int) -> int:
        """Micro-batches per rank."""
        return samples // self._round if self.drop_last else -(-samples // self._round)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.sampler)
        size = self._round * self._accumulation
        for start in range(0, len(order), size):
            step = order[start : start + size]
            rounds = self._count_micro_batches(len(step))
            step = step[: rounds * self._round]  # shorter with drop_last only
            missing = max(0, rounds * self._ranks - len(step)) if self._repeat else 0
            yield from self._split_step([*step, *islice(cycle(order), missing)], rounds)

    def _split_step(self, step: list[int], rounds: int) -> Iterator[list[int]]:
        if rounds * self._ranks <= 1:
            yield from [step] * rounds
            return
        lengths = self.lengths(step)
        if self._packed:  # costs the sum of its lengths
            mine = balance_by_cost(lengths, self._ranks)[self.rank]
            batches = [[mine[i] for i in batch] for batch in balance_by_cost([lengths[i] for i in mine], rounds)]
        else:  # costs its longest sample, times its samples
            similar = group_by_length(lengths, rounds * self._ranks)
            costs = [max((lengths[i] for i in batch), default=0) * len(batch) for batch in similar]
            batches = [similar[b] for b in balance_by_cost(costs, self._ranks)[self.rank]]
        yield from ([step[i] for i in batch] for batch in batches)


class LengthSampler(LengthGroupedSampler):
    """transformers' sampler of samples of similar length, with an order that depends on seed and epoch only.

    So resuming is exact.
    """

    def __init__(self, batch_size: int, lengths: Sequence[int], seed: int) -> None:
        super().__init__(batch_size, lengths=list(lengths), generator=torch.Generator())
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + self.epoch)
        return super().__iter__()
