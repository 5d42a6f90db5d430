"""Moves the micro-batches of a step to the device one at a time.

Images are large, so gradient accumulation must not hold those of all micro-batches on the device at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from accelerate.data_loader import DataLoaderShard

Batch = dict[str, Any]


def keep_batches_on_host(loader: Any) -> Any:
    """The data loader, changed to leave its batches on the host."""
    if isinstance(loader, DataLoaderShard):
        loader.device = None
    return loader


class OneBatchAhead(Sequence[Batch]):
    """The micro-batches of a step; each moves to the device just before the batch ahead of it is used.

    A used batch is emptied, so that at most two are on the device.
    """

    def __init__(self, batches: Sequence[Batch], move: Callable[[Batch], Batch]) -> None:
        self._batches, self._move = batches, move

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: Any) -> Any:
        return self._batches[index]

    def __iter__(self) -> Iterator[Batch]:
        ahead = self._move(self._batches[0]) if self._batches else None
        for k in range(1, len(self._batches) + 1):
            assert ahead is not None
            current, ahead = ahead, None
            if k < len(self._batches):
                ahead = self._move(self._batches[k])
            yield current
            if current is not self._batches[k - 1]:  # a copy on the device; on a CPU there is none
                current.clear()
