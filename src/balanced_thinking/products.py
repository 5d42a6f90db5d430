"""Float32 products on a CPU at oneDNN's speed, where its rounding is that of float32.

torch multiplies float32 matrices with MKL, which was half as fast as oneDNN on the Intel and AMD machines with AVX-512
that we measured. oneDNN is reached by allowing bfloat16 products, which it makes use of only on some machines (AMX): so
the error is probed once a process, and where it is not float32's, nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

_FAST = "bf16"
# Inner sizes short and long, so that a rounding of the inputs and one of the sums would both show.
_PROBED_MKN = ((256, 128, 384), (128, 2048, 512))
_TOLERANCE = 4.0  # times the error of the products as they are: the order of summation may differ, no more


@contextmanager
def fast_products() -> Iterator[None]:
    """Within it float32 products on a CPU go the faster way if that one rounds as float32 does; the setting that was
    found is put back."""
    if not rounds_as_float32():
        yield
        return
    with _precision(_FAST):
        yield


@cache
def rounds_as_float32() -> bool:
    """Whether the faster products exist here and are no less exact than the others, against float64."""
    if not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    rng = torch.Generator().manual_seed(0)
    for m, k, n in _PROBED_MKN:
        left_MK, right_KN = torch.randn(m, k, generator=rng), torch.randn(k, n, generator=rng)
        truth_MN = left_MK.double() @ right_KN.double()
        plain = (left_MK @ right_KN - truth_MN).abs().max()
        with _precision(_FAST):
            fast = (left_MK @ right_KN - truth_MN).abs().max()
        if fast > _TOLERANCE * plain:
            return False
    return True


@contextmanager
def _precision(value: str) -> Iterator[None]:
    settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # torch makes it when it is imported
    before = settings.fp32_precision
    settings.fp32_precision = value
    try:
        yield
    finally:
        settings.fp32_precision = before
