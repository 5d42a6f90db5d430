"""Buffers in huge pages are tensors like any other, and give their memory back."""

from __future__ import annotations

import gc
import sys

import pytest
import torch

from balanced_thinking.cpu import pages

SHAPE = (2048, 2048)  # 16 MiB of float32


def resident_mib() -> float:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) / 1024


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("offered", [True, False])
def test_a_buffer_has_the_shape_and_holds_what_is_written(
    dtype: torch.dtype, offered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "_has_huge_pages", lambda: offered)
    buffer = pages.new_buffer(torch.ones(1), SHAPE, dtype)
    assert (buffer.shape, buffer.dtype, buffer.is_contiguous()) == (SHAPE, dtype, True)
    assert torch.equal(buffer.fill_(3.0), torch.full(SHAPE, 3.0, dtype=dtype))


def test_a_small_buffer_is_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages.mmap, "mmap", lambda *_, **__: pytest.fail("mapped"))
    assert pages.new_buffer(torch.ones(1), (0, 5), torch.float32).shape == (0, 5)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_memory_is_given_back() -> None:
    for _ in range(8):
        pages.new_buffer(torch.ones(1), SHAPE, torch.float32).fill_(1.0)
    gc.collect()
    before = resident_mib()
    for _ in range(8):
        pages.new_buffer(torch.ones(1), SHAPE, torch.float32).fill_(1.0)
    assert resident_mib() - before < 20


def test_a_gradient_in_huge_pages_is_taken_over_and_can_be_shared() -> None:
    weight = torch.nn.Parameter(torch.zeros(SHAPE))
    buffer = pages.new_buffer(weight, SHAPE, torch.float32).fill_(2.0)
    weight.grad = buffer
    torch.optim.SGD([weight], lr=0.5).step()
    assert torch.equal(weight.detach(), torch.full(SHAPE, -1.0))
    assert torch.equal(buffer.clone().share_memory_(), buffer)
