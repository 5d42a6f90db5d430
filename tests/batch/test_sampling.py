"""Which samples share a micro-batch: by length, with the steps that there are without it."""

from __future__ import annotations

import math
import tracemalloc
from io import BytesIO
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from datasets import Dataset, Features, Image, List, Value
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PILImage
from torch.utils.data import BatchSampler, SequentialSampler
from trl import SFTConfig, SFTTrainer

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.batch.sampling import (
    LengthEstimator,
    LengthSampler,
    StepSampler,
    balance_by_cost,
    group_by_length,
)
from balanced_thinking.data.rows import to_dataset
from balanced_thinking.data.world import load
from balanced_thinking.models.tiny import build_tiny
from tests.conftest import ARCHITECTURES, some_now
from tests.tiny_training import QUIET, config, losses, trainer


@pytest.fixture(scope="module")
def ragged_rows() -> Dataset:
    """Twenty-two rows of very different lengths."""
    ratios = (5, 40, 10, 60, 20, 5, 80, 15, 30, 7, 50) * 2
    return to_dataset([next(load(n=1, seed=seed, ratio=ratio)) for seed, ratio in enumerate(ratios)])


def ragged(indices: Any) -> list[int]:
    """Lengths: 300 tokens of picture and prompt, reasoning of 300 at the median."""
    return [300 + int(Random(i).lognormvariate(math.log(300), 0.7)) for i in indices]


def dealt(samples: int, batch: int, accumulation: int, ranks: int, **options: Any) -> list[list[list[int]]]:
    """Each rank's micro-batches of an epoch in the data's own order."""
    order = SequentialSampler(range(samples))
    return [list(StepSampler(order, ragged, batch, accumulation, ranks, rank, **options)) for rank in range(ranks)]


def plain(samples: int, batch: int, ranks: int, drop_last: bool) -> list[list[list[int]]]:
    batches = BatchSampler(SequentialSampler(range(samples)), batch, drop_last)
    if ranks == 1:  # accelerate leaves the loader alone
        return [list(batches)]
    return [list(BatchSamplerShard(batches, ranks, rank)) for rank in range(ranks)]


def steps(epoch: list[list[list[int]]], accumulation: int) -> list[list[int]]:
    """The samples of each optimizer step, over all ranks."""
    starts = range(0, len(epoch[0]), accumulation)
    return [sorted(chain(*(chain(*mine[at : at + accumulation]) for mine in epoch))) for at in starts]


@given(
    samples=st.integers(1, 60),
    batch=st.integers(1, 4),
    accumulation=st.integers(1, 4),
    ranks=st.integers(1, 3),
    packed=st.booleans(),
    drop_last=st.booleans(),
)
def test_steps_have_the_samples_that_they_have_without_dealing(
    samples: int, batch: int, accumulation: int, ranks: int, packed: bool, drop_last: bool
) -> None:
    found = dealt(samples, batch, accumulation, ranks, packed=packed, last_step="drop" if drop_last else "keep")
    without = plain(samples, batch, ranks, drop_last)
    assert [len(mine) for mine in found] == [len(mine) for mine in without]
    sampler = StepSampler(SequentialSampler(range(samples)), ragged, batch, accumulation, ranks, 0, packed=packed)
    assert len(sampler) == len(dealt(samples, batch, accumulation, ranks, packed=packed)[0])
    if drop_last:
        assert all(len(one) > 0 for mine in found for one in mine)
        assert steps(found, accumulation) == steps(without, accumulation)
        return
    size = batch * accumulation * ranks
    of_one_process = [list(range(at, min(at + size, samples))) for at in range(0, samples, size)]
    assert steps(found, accumulation) == of_one_process
    repeating = dealt(samples, batch, accumulation, ranks, packed=packed, last_step="repeat")
    assert all(len(one) > 0 for mine in repeating for one in mine)
    assert steps(repeating, accumulation)[:-1] == of_one_process[:-1]
    assert set(chain(*steps(repeating, accumulation))) == set(range(samples))


@given(st.lists(st.integers(1, 999), min_size=1, max_size=30), st.data())
def test_even_bins_cost_at_most_twice_what_the_best_ones_do(costs: list[int], data: st.DataObject) -> None:
    bins = balance_by_cost(costs, data.draw(st.integers(1, len(costs))))
    assert sorted(chain(*bins)) == list(range(len(costs)))
    if len(costs) % len(bins) == 0:
        assert {len(one) for one in bins} == {len(costs) // len(bins)}
    totals = [sum(costs[i] for i in one) for one in bins]
    # Greedy scheduling without a limit on their number is at most 4/3 of the optimum, with one at most 2.
    assert max(totals) <= 2 * max(sum(costs) / len(bins), *costs)


def test_like_bins_are_cut_from_the_sorted_samples() -> None:
    assert group_by_length([5, 1, 9, 3, 7], 2) == [[2, 4, 0], [3, 1]]


def test_dealing_evens_out_packed_micro_batches_and_ranks_and_saves_padding() -> None:
    samples, batch, accumulation, ranks = 480, 2, 4, 4
    lengths = ragged(range(samples))
    of = {name: dealt(samples, batch, accumulation, ranks, packed=name == "packed") for name in ("packed", "padded")}
    without = plain(samples, batch, ranks, drop_last=False)

    def slowest(epoch: list[list[list[int]]], cost: Any) -> float:
        """Tokens that the ranks wait for, step by step."""
        starts = range(0, len(epoch[0]), accumulation)
        return sum(max(sum(map(cost, mine[at : at + accumulation])) for mine in epoch) for at in starts)

    def tokens(one: list[int]) -> int:
        return sum(lengths[i] for i in one)

    def padded(one: list[int]) -> int:
        return len(one) * max(lengths[i] for i in one)

    assert slowest(of["packed"], tokens) < 1.05 * sum(lengths) / ranks
    assert slowest(without, tokens) > 1.15 * sum(lengths) / ranks
    assert slowest(of["padded"], padded) < 0.8 * slowest(without, padded)
    assert max(tokens(one) for mine in of["packed"] for one in mine) < max(
        tokens(one) for mine in without for one in mine
    )


@pytest.mark.parametrize("epoch", [0, 1])
def test_the_order_of_the_samples_is_that_of_trl(ragged_rows: Dataset, tmp_path: Path, epoch: int) -> None:
    size = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3, "num_train_epochs": 2, "max_steps": -1}
    model, processor = build_tiny("qwen2_5_vl")
    theirs = SFTTrainer(
        model,
        SFTConfig(str(tmp_path), **(QUIET | size), bf16=False),
        data_collator=list,
        train_dataset=ragged_rows,
        processing_class=processor,
    )
    ours = trainer("qwen2_5_vl", ragged_rows, config(tmp_path, **size))
    ours.data_collator = list
    found = []
    for run in (theirs, ours):
        loader = run.get_train_dataloader()
        loader.set_epoch(epoch)
        found.append(steps([[[str(row["completion"]) for row in rows] for rows in loader]], accumulation=3))
    assert found[0] == found[1]
    assert len(found[1]) == 4  # 22 samples, the last step with four


@pytest.mark.parametrize("packing", some_now(bool, [False, True]))
def test_a_run_that_accumulates_learns_as_one_that_does_not_and_resumes_exactly(
    ragged_rows: Dataset, tmp_path: Path, packing: bool
) -> None:
    options = {"max_steps": -1, "num_train_epochs": 2, "max_length": None, "packing": packing}
    split = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
        "save_strategy": "steps",
        "save_steps": 4,
    }
    one_batch = trainer("qwen2_5_vl", ragged_rows, config(tmp_path / "one_batch", **options))
    dealing = trainer("qwen2_5_vl", ragged_rows, config(tmp_path / "dealt", **options, **split))
    for run in (one_batch, dealing):
        run.train()
    assert losses(dealing) == pytest.approx(losses(one_batch), rel=1e-5)
    assert len(losses(one_batch)) == 6  # three steps an epoch: the checkpoint is in the middle of the second
    again = trainer("qwen2_5_vl", ragged_rows, config(tmp_path / "dealt", **options, **split))
    again.train(resume_from_checkpoint=str(tmp_path / "dealt" / "checkpoint-4"))
    assert losses(again)[4:] == losses(dealing)[4:]


def test_packed_micro_batches_are_balanced_and_padded_ones_grouped_by_length(
    ragged_rows: Dataset, tmp_path: Path
) -> None:
    size = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 11, "max_length": None}
    tokens = {}
    for packing in (False, True):
        run = trainer("qwen2_5_vl", ragged_rows, config(tmp_path, packing=packing, **size))
        batches = list(run.get_train_dataloader())
        tokens[packing] = [
            sum(map(sum, b["batch_info"].lengths_by_row)) if packing else int(b["attention_mask"].sum())
            for b in batches
        ]
    assert sum(tokens[True]) == sum(tokens[False])
    assert max(tokens[True]) < 0.7 * max(tokens[False])


def test_each_sampling_strategy_of_transformers_has_its_sampler(ragged_rows: Dataset, tmp_path: Path) -> None:
    found = {}
    text = ragged_rows.remove_columns("images")
    evaluated = trainer("qwen2", text, config(tmp_path)).predict(text)
    for strategy in ("random", "batch_rebalance", "group_by_length", "sequential"):
        run = trainer("qwen2", text, config(tmp_path, train_sampling_strategy=strategy))
        found[strategy] = type(run._get_train_sampler())
        again = run.predict(text)
        assert again.metrics["test_loss"] == pytest.approx(evaluated.metrics["test_loss"], rel=1e-6)
        assert (again.label_ids == evaluated.label_ids).all()  # in the order of the rows
    assert found == {
        "random": StepSampler,
        "batch_rebalance": StepSampler,
        "group_by_length": LengthSampler,
        "sequential": SequentialSampler,
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rough_lengths_follow_the_true_ones(ragged_rows: Dataset, architecture: str) -> None:
    _, processor = build_tiny(architecture)
    rough = torch.tensor(LengthEstimator(ragged_rows, processor)(range(len(ragged_rows))), dtype=torch.float64)
    batch = ScaleCollator(processor)(list(ragged_rows))
    true = batch["attention_mask"].sum(1).to(torch.float64)
    assert torch.corrcoef(torch.stack([rough, true]))[0, 1] > 0.98


def test_pictures_count_by_their_sides_however_a_row_holds_them(tmp_path: Path) -> None:
    _, processor = build_tiny("qwen2_5_vl")
    sides = [(56, 56), (56, 112), (112, 112)]
    pictures = [PILImage.new("RGB", size) for size in sides]
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path)
    text = {"prompt": ["abcd" * 5] * 3, "completion": ["efgh" * 5] * 3}
    names = [str(path) for path in paths]
    several = Dataset.from_dict(text | {"images": [[name] for name in names]})
    columns: dict[str, Any] = {
        "paths": several,
        "single": Dataset.from_dict(text | {"image": names}),
        "decoded": several.cast_column("images", List(Image())),
        "one decoded": Dataset.from_dict(text | {"image": pictures}).cast_column("image", Image()),
    }
    for case, rows in columns.items():
        assert LengthEstimator(rows, processor)([2, 0, 1]) == [10 + 16, 10 + 4, 10 + 8], case
    (tmp_path / "1.png").write_bytes(b"no picture")
    assert LengthEstimator(columns["paths"], processor)([0, 1]) == [14, 10]
    assert LengthEstimator(columns["paths"], processor.tokenizer)([0, 2]) == [10, 10]


def test_grouping_puts_like_with_like_and_another_order_in_each_epoch(ragged_rows: Dataset) -> None:
    lengths = LengthEstimator(ragged_rows, None)(range(len(ragged_rows))) * 40
    sampler = LengthSampler(4, lengths, seed=3)
    first = list(sampler)
    assert sorted(first) == list(range(len(lengths)))
    batches = [first[i : i + 4] for i in range(0, len(first), 4)]
    close = sum(max(lengths[i] for i in batch) < 1.5 * min(lengths[i] for i in batch) for batch in batches)
    assert close > 0.9 * len(batches)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first


def test_of_a_picture_in_a_row_only_the_beginning_is_read() -> None:
    """`group_by_length` asks for all rows at once: a data set of pictures must not be held in memory for it."""
    file = BytesIO()
    PILImage.new("RGB", (56, 112)).save(file, "PNG")
    large = file.getvalue() + bytes(2**22)
    pictures = [[{"bytes": large, "path": None}] for _ in range(8)]
    columns = {"prompt": ["abcd" * 5] * 8, "completion": ["efgh" * 5] * 8, "images": pictures}
    features = Features({"prompt": Value("string"), "completion": Value("string"), "images": List(Image())})
    lengths = LengthEstimator(Dataset.from_dict(columns, features), build_tiny("qwen2_5_vl")[1])
    lengths([0])
    tracemalloc.start()
    try:
        assert lengths(range(8)) == [10 + 8] * 8
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_rows_whose_lengths_are_not_known_are_dealt_all_the_same() -> None:
    """A transform makes TRL's columns of others; a picture may be no picture, and a processor may be at a loss."""

    class Processor:
        def _get_num_multimodal_tokens(self, image_sizes: Any) -> Any:
            raise KeyError("longest_edge")

    raw = Dataset.from_dict({"question": ["a", "b", "c", "d"]})
    prepared = raw.with_transform(lambda rows: {"prompt": rows["question"], "completion": rows["question"]})
    assert LengthEstimator(prepared, None)([0, 3]) == [0, 0]
    for packed in (False, True):
        order = StepSampler(SequentialSampler(raw), LengthEstimator(prepared, None), 1, 4, packed=packed)
        assert sorted(chain(*order)) == [0, 1, 2, 3]
    picture = BytesIO()
    PILImage.new("RGB", (8, 8)).save(picture, "PNG")
    for column in ([{"url": "x"}], [{"bytes": picture.getvalue()}], [None], [7]):
        assert LengthEstimator(Dataset.from_dict({"prompt": ["abcd"], "image": column}), Processor())([0]) == [1], (
            column
        )
