"""Fast float32 products: as exact as the others, and the setting that was found is put back."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from balanced_thinking.cpu import products
from balanced_thinking.cpu.attention import fast_matmuls_and_attention
from balanced_thinking.cpu.products import are_fast_matmuls_exact, fast_matmuls


def test_products_are_no_less_exact_than_float32() -> None:
    rng = torch.Generator().manual_seed(3)
    left, right = torch.randn(512, 640, generator=rng), torch.randn(640, 256, generator=rng)
    truth = left.double() @ right.double()
    plain = (left @ right - truth).abs().max()
    with fast_matmuls():
        fast = (left @ right - truth).abs().max()
    assert fast <= 4 * plain  # bfloat16 products would be off a thousand times as much


@pytest.mark.parametrize("found", ["none", "ieee"])
def test_the_setting_is_put_back_even_after_an_error(found: str) -> None:
    settings = torch.backends.mkldnn.matmul
    before = settings.fp32_precision
    try:
        settings.fp32_precision = found
        with pytest.raises(KeyError), fast_matmuls():
            raise KeyError
        assert settings.fp32_precision == found
    finally:
        settings.fp32_precision = before


@pytest.mark.parametrize("found", ["highest", "high", "medium", "bf16 for oneDNN alone"])
def test_torch_reports_its_precision_within_and_after_as_before(found: str) -> None:
    """torch.compile asks for it."""
    settings = torch.backends.mkldnn.matmul
    before = torch.get_float32_matmul_precision(), settings.fp32_precision
    try:
        if found in ("highest", "high", "medium"):
            torch.set_float32_matmul_precision(found)
            with fast_matmuls():
                assert torch.get_float32_matmul_precision() in (found, "medium")
            assert torch.get_float32_matmul_precision() == found
        else:  # torch does not report it outside either
            settings.fp32_precision = "bf16"
            with fast_matmuls():
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
    are_fast_matmuls_exact.cache_clear()
    try:
        torch.set_float32_matmul_precision(allowed)
        assert not are_fast_matmuls_exact()
        torch.set_float32_matmul_precision("highest")
        with products.fast_matmuls():
            assert torch.backends.mkldnn.matmul.fp32_precision != "bf16"
    finally:
        are_fast_matmuls_exact.cache_clear()
        torch.set_float32_matmul_precision(before[0])
        torch.backends.mkldnn.matmul.fp32_precision = before[1]


class Precisions(TorchDispatchMode):
    """How oneDNN may round while operators of fused attention run, and those of other products."""

    def __init__(self) -> None:
        super().__init__()
        self.attention: list[str] = []
        self.products: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for kind, name in ((self.attention, "scaled_dot_product"), (self.products, "aten::mm")):
            if name in func._schema.name:
                kind.append(torch.backends.mkldnn.matmul.fp32_precision)
        return func(*args, **(kwargs or {}))


@pytest.mark.skipif(not are_fast_matmuls_exact(), reason="the faster products are not used here")
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("length", [40, 1200])
def test_fused_attention_is_kept_from_the_faster_products_where_it_is_short(length: int, checkpointed: bool) -> None:
    """Both passes of it, and nothing else."""
    inputs = [torch.randn(1, 2, length, 16, requires_grad=True) for _ in range(3)]
    weight = torch.randn(16, 16)

    def attend(*inputs: torch.Tensor) -> torch.Tensor:
        return ALL_ATTENTION_FUNCTIONS["sdpa"](torch.nn.Module(), *inputs, None)[0]

    with fast_matmuls_and_attention(), fast_matmuls_and_attention(), Precisions() as found:
        output = checkpoint(attend, *inputs, use_reentrant=False) if checkpointed else attend(*inputs)
        (output.flatten(0, 2) @ weight).sum().backward()
    assert len(found.attention) == (3 if checkpointed else 2)
    assert set(found.attention) == ({"ieee"} if length == 40 else set(found.products))
    assert len(found.products) == 2
    assert "ieee" not in found.products
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward


_MANY_SHAPES = """
import torch
from balanced_thinking.system.memory import peak_mib
from balanced_thinking.cpu.products import fast_matmuls

right = torch.ones(128, 384)
with fast_matmuls():
    torch.ones(8, 128) @ right
    before = peak_mib()
    for rows in range(9, 1009):
        torch.ones(rows, 128) @ right
print(peak_mib() - before)
"""


@pytest.mark.skipif(not are_fast_matmuls_exact(), reason="the faster products are not used here")
@pytest.mark.slow
def test_a_thousand_shapes_of_products_are_not_all_kept() -> None:
    """Unless the user asks for that."""
    chosen = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    found = {}
    for capacity in (None, "1024"):
        environment = {name: value for name, value in os.environ.items() if name not in chosen}
        environment |= dict.fromkeys(chosen, capacity) if capacity else {}
        command = [sys.executable, "-c", _MANY_SHAPES]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
        found[capacity] = float(done.stdout)
    assert found[None] < 0.5 * found["1024"], found
