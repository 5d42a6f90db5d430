"""Float32 products on a CPU at oneDNN's speed, where its rounding is that of float32.

torch multiplies float32 matrices with MKL, which took 1.0 to 2 times as long as oneDNN on the Intel and AMD machines
with AVX-512 that we measured. oneDNN is reached by allowing bfloat16 products, which it makes use of only on some
machines (AMX): so the error is probed once a process, and where it is not float32's, nothing is changed. Nor is it
where there is a GPU: torch has one setting for both, and the GPU's products are the user's business.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch

# oneDNN compiles a product for each shape and keeps 1,024 of them, torch as many copies, half a MiB each; ragged data
# has new shapes in nearly every micro-batch. oneDNN's cache alone is as fast, with room for a batch of 32 samples.
_CACHES = {"LRU_CACHE_CAPACITY": "1", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256"}
_FASTER: ContextVar[bool] = ContextVar("faster", default=False)
# Inner sizes short and long, so that a rounding of the inputs and one of the sums would both show.
_PROBED_MKN = ((256, 128, 384), (128, 2048, 512))
_TOLERANCE = 4.0  # times the error of the products as they are: the order of summation may differ, no more


def bound_caches() -> None:
    """Let a process of many shapes hold a gigabyte less, unless its user says how large the caches may be. They are
    read when oneDNN is first used: before a model runs, that is."""
    for name, capacity in _CACHES.items():
        os.environ.setdefault(name, capacity)


@contextmanager
def fast_products() -> Iterator[None]:
    """Within it float32 products on a CPU go the faster way if that one rounds as float32 does; the setting that was
    found is put back."""
    bound_caches()
    if torch.cuda.is_available() or not rounds_as_float32():
        yield
        return
    token = _FASTER.set(True)
    try:
        with _fast():
            yield
    finally:
        _FASTER.reset(token)


def faster_now() -> bool:
    """Whether products go the faster way here because of `fast_products`."""
    return _FASTER.get()


@contextmanager
def plain_products() -> Iterator[None]:
    """Within it they go the way that torch goes by default."""
    with _restored():
        if _precision() is not None:
            torch.set_float32_matmul_precision("highest")
        _onednn().fp32_precision = "ieee"
        yield


@cache
def rounds_as_float32() -> bool:
    """Whether the faster products exist here and are no less exact than IEEE's, against float64. What the user allows
    at the time plays no part: the answer is kept for the process."""
    if not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    rng = torch.Generator().manual_seed(0)
    for m, k, n in _PROBED_MKN:
        left_MK, right_KN = torch.randn(m, k, generator=rng), torch.randn(k, n, generator=rng)
        truth_MN = left_MK.double() @ right_KN.double()
        with _restored():
            _onednn().fp32_precision = "ieee"
            plain = (left_MK @ right_KN - truth_MN).abs().max()
        with _fast():
            fast = (left_MK @ right_KN - truth_MN).abs().max()
        if fast > _TOLERANCE * plain:
            return False
    return True


@contextmanager
def _fast() -> Iterator[None]:
    with _restored():
        if _precision() is None:
            _onednn().fp32_precision = "bf16"
        else:  # set alone, oneDNN's would contradict the general setting, which torch then refuses to tell
            torch.set_float32_matmul_precision("medium")
        yield


@contextmanager
def _restored() -> Iterator[None]:
    """Puts back what was found: the general setting, and those of oneDNN and CUDA, which may say something else."""
    onednn, cuda, general = _onednn(), torch.backends.cuda.matmul, _precision()
    found = onednn.fp32_precision, cuda.fp32_precision
    try:
        yield
    finally:
        if general is not None:
            torch.set_float32_matmul_precision(general)
        onednn.fp32_precision, cuda.fp32_precision = found


def _precision() -> str | None:
    """torch's general setting; None where the user's finer ones contradict it."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _onednn() -> Any:
    return torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # torch makes it when it is imported
