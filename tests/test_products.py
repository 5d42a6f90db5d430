"""Fast float32 products: as exact as the others, and the setting that was found is put back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from balanced_thinking import products
from balanced_thinking.products import fast_products, rounds_as_float32


def test_products_are_no_less_exact_than_float32() -> None:
    rng = torch.Generator().manual_seed(3)
    left, right = torch.randn(512, 640, generator=rng), torch.randn(640, 256, generator=rng)
    truth = left.double() @ right.double()
    plain = (left @ right - truth).abs().max()
    with fast_products():
        fast = (left @ right - truth).abs().max()
    assert fast <= 4 * plain  # bfloat16 products would be off a thousand times as much


@pytest.mark.parametrize("found", ["none", "ieee"])
def test_the_setting_is_put_back_even_after_an_error(found: str) -> None:
    settings = torch.backends.mkldnn.matmul
    before = settings.fp32_precision
    try:
        settings.fp32_precision = found
        with pytest.raises(KeyError), fast_products():
            raise KeyError
        assert settings.fp32_precision == found
    finally:
        settings.fp32_precision = before


@pytest.mark.parametrize("found", ["highest", "high", "medium", "bf16 for oneDNN alone"])
def test_torch_tells_its_precision_within_and_after_as_before(found: str) -> None:
    """torch.compile asks for it."""
    settings = torch.backends.mkldnn.matmul
    before = torch.get_float32_matmul_precision(), settings.fp32_precision
    try:
        if found in ("highest", "high", "medium"):
            torch.set_float32_matmul_precision(found)
            with fast_products():
                assert torch.get_float32_matmul_precision() in (found, "medium")
            assert torch.get_float32_matmul_precision() == found
        else:  # torch does not tell outside either
            settings.fp32_precision = "bf16"
            with fast_products():
                assert settings.fp32_precision == "bf16"
            assert settings.fp32_precision == "bf16"
    finally:
        settings.fp32_precision = before[1]
        torch.set_float32_matmul_precision(before[0])
        settings.fp32_precision = before[1]


@pytest.mark.parametrize("allowed", ["highest", "medium"])
def test_products_that_round_to_bfloat16_are_refused(allowed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with AMX, where the same setting means bfloat16; whatever the user allows while it is probed."""
    before = torch.get_float32_matmul_precision(), torch.backends.mkldnn.matmul.fp32_precision
    plain = torch.Tensor.__matmul__

    def rounded(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        if torch.backends.mkldnn.matmul.fp32_precision == "bf16" and left.dtype == torch.float32:
            left, right = left.bfloat16().float(), right.bfloat16().float()
        return plain(left, right)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    rounds_as_float32.cache_clear()
    try:
        torch.set_float32_matmul_precision(allowed)
        assert not rounds_as_float32()
        torch.set_float32_matmul_precision("highest")
        with products.fast_products():
            assert torch.backends.mkldnn.matmul.fp32_precision != "bf16"
    finally:
        rounds_as_float32.cache_clear()
        torch.set_float32_matmul_precision(before[0])
        torch.backends.mkldnn.matmul.fp32_precision = before[1]


_MANY_SHAPES = """
import torch
from balanced_thinking.memory import peak_mib
from balanced_thinking.products import fast_products

right = torch.ones(128, 384)
with fast_products():
    torch.ones(8, 128) @ right
    before = peak_mib()
    for rows in range(9, 1009):
        torch.ones(rows, 128) @ right
print(peak_mib() - before)
"""


@pytest.mark.skipif(not rounds_as_float32(), reason="the faster products are not used here")
@pytest.mark.parametrize(("capacity", "least", "most"), [(None, 0, 150), ("1024", 300, 2000)])
def test_a_thousand_shapes_of_products_are_not_all_kept(capacity: str | None, least: int, most: int) -> None:
    """Unless the user asks for that."""
    chosen = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    environment = {name: value for name, value in os.environ.items() if name not in chosen}
    environment |= dict.fromkeys(chosen, capacity) if capacity else {}
    done = subprocess.run(
        [sys.executable, "-c", _MANY_SHAPES], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert least <= float(done.stdout) <= most
