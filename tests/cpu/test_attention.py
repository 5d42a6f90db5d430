"""Attention beside the faster products: whose function does the work, and what is there afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from balanced_thinking.cpu import products
from balanced_thinking.cpu.attention import fast_matmuls_and_attention
from tests.tiny_training import config, losses, trainer


@pytest.fixture
def faster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the faster products are used here; as on a machine that has them, unless a test asks for the other."""
    found = getattr(request, "param", True)
    monkeypatch.setattr(products, "are_fast_matmuls_exact", lambda: found)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return found


@pytest.fixture(params=["registered", "set"])
def calls(request: pytest.FixtureRequest) -> Iterator[list[int]]:
    """The lengths that a user's own "sdpa" was called with: registered for all models, or set on what they share."""
    lengths: list[int] = []

    def mine(module: torch.nn.Module, query: torch.Tensor, *rest: Any, **options: Any) -> Any:
        lengths.append(query.shape[2])
        return sdpa_attention_forward(module, query, *rest, **options)

    if request.param == "registered":
        AttentionInterface.register("sdpa", mine)
    else:
        ALL_ATTENTION_FUNCTIONS["sdpa"] = mine
    yield lengths
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is mine
    if request.param == "registered":
        AttentionInterface.register("sdpa", sdpa_attention_forward)
    else:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward


@pytest.mark.parametrize("packing", [False, True])
def test_the_user_s_own_attention_is_used_and_restored(
    packing: bool, calls: list[int], faster: bool, world_rows: Dataset, tmp_path: Path
) -> None:
    run = trainer("qwen2_5_vl", world_rows, config(tmp_path, packing=packing))
    probed = len(calls)
    run.train()
    assert len(calls) - probed >= 2 * (2 + 2)  # of decoder and vision tower: a forward of two micro-batches or rows
    assert max(calls[probed:]) > 24  # the decoder's among them


def test_another_attention_that_is_set_meanwhile_stays(faster: bool) -> None:
    def mine(*_: Any, **__: Any) -> Any:
        raise AssertionError

    try:
        with fast_matmuls_and_attention():
            ALL_ATTENTION_FUNCTIONS["sdpa"] = mine
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is mine
    finally:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]


@pytest.mark.parametrize("faster", [True, False], indirect=True)
def test_attention_is_replaced_where_products_are_faster_and_nowhere_else(faster: bool) -> None:
    with fast_matmuls_and_attention():
        assert (ALL_ATTENTION_FUNCTIONS["sdpa"] is not sdpa_attention_forward) == faster
        once = ALL_ATTENTION_FUNCTIONS["sdpa"]
        with fast_matmuls_and_attention():
            assert ALL_ATTENTION_FUNCTIONS["sdpa"] is once
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is once
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward
    with pytest.raises(KeyError), fast_matmuls_and_attention():
        raise KeyError
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward


def test_training_with_and_without_the_replaced_attention_is_the_same(
    world_rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for faster in (True, False):
        monkeypatch.setattr(products, "are_fast_matmuls_exact", lambda faster=faster: faster)
        run = trainer("gemma3", world_rows, config(tmp_path, max_steps=2))
        run.train()
        found.append(losses(run))
    assert found[0] == pytest.approx(found[1], rel=1e-4)
