"""A batch's own notes on its way from the collator to the trainer."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import send_to_device
from datasets import Dataset
from torch.utils.data import DataLoader
from torch.utils.data._utils.pin_memory import pin_memory

from balanced_thinking.batch.collator import Packing, ScaleCollator
from balanced_thinking.batch.info import BATCH_INFO, BatchInfo
from balanced_thinking.models.tiny import build_tiny
from tests.tiny_training import config, losses, trainer


@pytest.mark.parametrize("packing", [None, Packing()])
def test_it_comes_out_of_a_worker_as_it_went_in(packing: Packing | None, world_rows: Dataset) -> None:
    text_rows = world_rows.remove_columns("images")
    collator = ScaleCollator(build_tiny("qwen2")[1], packing=packing)
    here = [collator([text_rows[i], text_rows[i + 1]])[BATCH_INFO] for i in range(0, len(text_rows), 2)]
    loader = DataLoader(text_rows, batch_size=2, collate_fn=collator, num_workers=2)
    there = [batch[BATCH_INFO] for batch in loader]
    assert len(here) == len(there) == 4
    for expected, found in zip(here, there, strict=True):
        assert (found.kept, found.dropped, found.lengths_by_row) == (expected.kept, 0, expected.lengths_by_row)
        assert (found.token_indices is None) == (packing is None)
        assert packing is None or torch.equal(found.token_indices, expected.token_indices)


def test_it_is_pinned_and_moved_with_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    info = BatchInfo((0, 2), 1, torch.arange(6).view(2, 3), [[4, 4]], (3, 5))
    pinned: list[torch.Size] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor.shape) or tensor.clone())
    batch = {"input_ids": torch.zeros(1, 8), BATCH_INFO: info}
    moved = send_to_device(pin_memory(batch), "meta", non_blocking=True)[BATCH_INFO]
    assert pinned == [(1, 8), (2, 3)]
    assert moved.token_indices.device.type == "meta"
    assert (moved.kept, moved.dropped, moved.lengths_by_row, moved.supervised) == ((0, 2), 1, [[4, 4]], (3, 5))
    assert info.token_indices is not None
    assert info.token_indices.device.type == "cpu"  # the batch on the host keeps its own


def test_padded_batches_pass_through_unchanged() -> None:
    info, values = BatchInfo(), torch.arange(6.0).view(2, 3)
    assert pickle.loads(pickle.dumps(info)).kept is None
    assert info.to("meta") is info.pin_memory() is info
    assert info.unpack_samples(values) is values
    assert info.pack_samples(values, values) is values


def test_a_collator_of_the_user_need_not_add_it(world_rows: Dataset, tmp_path: Path) -> None:
    ours = ScaleCollator(build_tiny("qwen2_5_vl")[1])

    def without_info(rows: list[Any]) -> dict[str, Any]:
        batch = ours(rows)
        del batch[BATCH_INFO]
        return batch

    found = []
    for collator in (ours, without_info):
        args = config(tmp_path, max_steps=2, per_device_train_batch_size=4, per_device_eval_batch_size=3)
        run = trainer("qwen2_5_vl", world_rows, args, data_collator=collator, eval_dataset=world_rows)
        run.train()
        found.append((losses(run), run.evaluate()["eval_loss"]))
    assert found[0] == found[1]
