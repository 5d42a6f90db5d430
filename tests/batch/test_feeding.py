"""Micro-batches on their way to the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from balanced_thinking.batch.feeding import OneBatchAhead
from tests.tiny_training import config, losses, trainer


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_two_micro_batches_at_most_are_on_the_device_and_each_gets_there_once(count: int) -> None:
    on_host = [{"pixel_values": k} for k in range(count)]
    moved: list[dict[str, int]] = []

    def move(batch: dict[str, Any]) -> dict[str, Any]:
        moved.append(dict(batch))
        return moved[-1]

    seen = []
    for batch in OneBatchAhead(on_host, move):
        seen.append(batch["pixel_values"])
        held = [copy for copy in moved if copy]
        assert len(held) <= 2
        assert len(moved) == min(len(seen) + 1, count)  # the next one is on its way
    assert seen == list(range(count))
    assert not any(moved)
    assert all(on_host)


def test_batches_wait_on_the_host_until_their_turn(world_rows: Dataset, tmp_path: Path) -> None:
    args = config(tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    run = trainer("qwen2_5_vl", world_rows, args)
    assert run.get_train_dataloader().device is None
    batches, counts = run.get_batch_samples(iter(run.get_train_dataloader()), 4, args.device)
    assert len(batches) == 4
    assert counts is not None
    assert batches[0] is not batches[1]


def test_workers_change_nothing_but_the_time(world_rows: Dataset, tmp_path: Path) -> None:
    found = []
    for workers in (None, 2):
        args = config(
            tmp_path, max_steps=2, per_device_train_batch_size=4, dataloader_num_workers=workers, packing=True
        )
        assert torch.cuda.is_available() or args.dataloader_num_workers == (workers or 0)
        run = trainer("qwen2_5_vl", world_rows, args)
        run.train()
        found.append(losses(run))
    assert found[0] == found[1]
