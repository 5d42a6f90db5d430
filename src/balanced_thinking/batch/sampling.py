"""Which samples go into a micro-batch together: chosen by length, without tokenizing a text or decoding a picture.

The loss of an optimizer step does not depend on how its samples are cut into micro-batches and ranks, so `StepSampler`
is free to deal them out. `LengthSampler` goes further and decides which samples make up a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from heapq import heappop, heappush
from itertools import accumulate, cycle, islice, pairwise
from typing import Any

import pyarrow as pa
import torch
from datasets import Dataset
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import BatchRebalanceSampler, LengthGroupedSampler

from balanced_thinking.data.checks import UNREADABLE
from balanced_thinking.data.images import image_size

_TEXT_COLUMNS = ("messages", "prompt", "completion")
_PICTURE_COLUMNS = ("image", "images")
_CHARACTERS = 4  # of a text, to a token


class LengthEstimator:
    """Roughly the tokens that rows of a dataset will have: their texts by characters, their pictures by the sides that
    stand at the beginning of a file.

    Args:
        dataset: in TRL's columns. processor: the model's; what it cannot say of pictures counts nothing.
    """

    def __init__(self, dataset: Dataset, processor: Any) -> None:
        self._rows = dataset.with_format("arrow")  # as stored: no picture is decoded
        self._names = [name for name in (*_TEXT_COLUMNS, *_PICTURE_COLUMNS) if name in dataset.column_names]
        self._of_pictures = getattr(processor, "_get_num_multimodal_tokens", None)

    def __call__(self, indices: Sequence[int]) -> list[int]:
        table = self._rows[list(indices)]
        columns = {name: table.column(name) for name in self._names}
        rows = [{name: _scalar_to_python(column[i]) for name, column in columns.items()} for i in range(len(table))]
        tokens = [sum(_count_characters(row.get(name)) for name in _TEXT_COLUMNS) // _CHARACTERS for row in rows]
        sides = [
            (i, side)
            for i, row in enumerate(rows)
            for picture in _row_images(row)
            if (side := _image_height_width(picture))
        ]
        for (i, _), seen in zip(sides, self._count_image_tokens([side for _, side in sides]), strict=True):
            tokens[i] += seen
        return tokens

    def _count_image_tokens(self, sides: Sequence[tuple[int, int]]) -> list[int]:
        """Of pictures of these heights and widths, all at once: the processor sorts its settings anew for each call."""
        if self._of_pictures is not None and sides:
            with suppress(AttributeError, LookupError, TypeError):  # a guess stops no run
                return self._of_pictures(image_sizes=sides).num_image_tokens
        return [0] * len(sides)


def _row_images(row: Mapping[str, Any]) -> list[Any]:
    single = row.get("image")
    return [*(row.get("images") or ()), *(() if single is None else (single,))]


def _image_height_width(picture: Any) -> tuple[int, int] | None:
    """Height and width in pixels; None of a file that cannot be read: the collator names it."""
    if isinstance(picture, Mapping):  # as datasets store it
        picture = picture.get("path") if picture.get("bytes") is None else picture["bytes"]
    try:
        return image_size(picture)[::-1]
    except (AttributeError, TypeError, *UNREADABLE):
        return None


def _scalar_to_python(value: pa.Scalar) -> Any:
    """As Python holds it, but bytes as a file: of a picture only the beginning is read then, from the disk too."""
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
    """Bins of indices, of sizes that differ by one at most, whose costs add up to nearly the same: the dearest first,
    each into the cheapest bin with room."""
    dealt: list[list[int]] = [[] for _ in range(bins)]
    size, larger = divmod(len(costs), bins)  # so many bins take one more
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
    """Bins of indices, of sizes that differ by one at most, of similar length: cut from the longest to the shortest."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    sizes = (len(order) // bins + (b < len(order) % bins) for b in range(bins))
    return [order[start:stop] for start, stop in pairwise(accumulate(sizes, initial=0))]


class StepSampler(BatchRebalanceSampler):
    """Micro-batches of one rank. An optimizer step has the samples that it has without this sampler (but for those
    that fill up an epoch's last step on several ranks); which of its micro-batches, and whose, holds which of them
    goes by length: packed ones get about the same number of tokens, so that none is much larger than the others; padded
    ones samples of similar length, so that little is padding. Either way no rank waits long for another. A step whose
    samples are all in one micro-batch is left as it is.

    Trainer hands on a batch sampler of this base class as it is; accelerate seeds the order that it finds in `sampler`,
    and tells it the epoch.

    Args:
        sampler: the order of the samples. lengths: indices -> rough tokens of each.
        batch_size: samples of a micro-batch. accumulation: micro-batches of a step on each of `ranks`.
        packed: whether a micro-batch costs what its samples have together, or what padding makes of them.
    """

    def __init__(  # none of the base's work is done here
        self,
        sampler: Sampler[int],
        lengths: Callable[[Sequence[int]], Sequence[int]],
        batch_size: int,
        accumulation: int,
        ranks: int = 1,
        rank: int = 0,
        *,
        packed: bool,
        drop_last: bool = False,
    ) -> None:
        self.sampler, self.lengths = sampler, lengths
        self._round, self._accumulation, self._ranks, self.rank = batch_size * ranks, accumulation, ranks, rank
        self._packed, self.drop_last = packed, drop_last

    def __len__(self) -> int:
        return self._count_rounds(len(self.sampler))  # type: ignore[arg-type]

    def _count_rounds(self, samples: int) -> int:
        """Micro-batches of each rank."""
        return samples // self._round if self.drop_last else -(-samples // self._round)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.sampler)
        size = self._round * self._accumulation
        for start in range(0, len(order), size):
            step = order[start : start + size]
            rounds = self._count_rounds(len(step))
            step = step[: rounds * self._round]  # shorter with drop_last only
            missing = max(0, rounds * self._ranks - len(step))
            yield from self._split_step([*step, *islice(cycle(order), missing)], rounds)

    def _split_step(self, step: list[int], rounds: int) -> Iterator[list[int]]:
        if rounds * self._ranks <= 1:
            yield from [step] * rounds
            return
        lengths = self.lengths(step)
        if self._packed:  # costs what its samples have together
            mine = balance_by_cost(lengths, self._ranks)[self.rank]
            batches = [[mine[i] for i in batch] for batch in balance_by_cost([lengths[i] for i in mine], rounds)]
        else:  # its longest, once for each
            like = group_by_length(lengths, rounds * self._ranks)
            costs = [max(lengths[i] for i in batch) * len(batch) for batch in like]
            batches = [like[b] for b in balance_by_cost(costs, self._ranks)[self.rank]]
        yield from ([step[i] for i in batch] for batch in batches)


class LengthSampler(LengthGroupedSampler):
    """transformers' sampler, which puts samples of similar length into one step, with an order that the seed and the
    epoch alone decide, so that resuming is exact."""

    def __init__(self, batch_size: int, lengths: Sequence[int], seed: int) -> None:
        super().__init__(batch_size, lengths=list(lengths), generator=torch.Generator())
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + self.epoch)
        return super().__iter__()
