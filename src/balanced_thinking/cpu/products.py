"""Float32 matrix products (matmuls) on a CPU at oneDNN's speed, where oneDNN rounds as float32 does.

torch multiplies float32 matrices with MKL. On the Intel and AMD machines with AVX-512 that we measured, MKL took 1.0 to
2 times as long as oneDNN. torch uses oneDNN once bfloat16 products are allowed, and oneDNN really computes in bfloat16
only on some machines (AMX). So the error is measured once per process, and nothing is changed where it is larger than
that of float32. Nothing is changed beside a GPU either: torch has one setting for both, and the GPU's products are the
user's choice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch

# oneDNN compiles a matmul for each shape and keeps 1,024 of them; torch keeps as many copies, of half a MiB each.
# Samples of many lengths bring new shapes in nearly every micro-batch. oneDNN's cache alone is as fast, and 256 entries
# hold the shapes of a batch of 32 samples.
_CACHES = {"LRU_CACHE_CAPACITY": "1", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256"}
_FASTER: ContextVar[bool] = ContextVar("faster", default=False)
# Short and long inner sizes, so that both a rounding of the inputs and one of the sums would show.
_PROBED_MKN = ((256, 128, 384), (128, 2048, 512))
_TOLERANCE = 4.0  # times the error of plain matmuls: only the order of summation may differ


def limit_onednn_caches() -> None:
    """Save a gigabyte in a process with many shapes, unless the user's environment sets the sizes of the caches.

    Call it before a model runs: the sizes are read when oneDNN is first used.
    """
    for name, capacity in _CACHES.items():
        os.environ.setdefault(name, capacity)


@contextmanager
def fast_matmuls() -> Iterator[None]:
    """Within it float32 matmuls on a CPU use oneDNN if it rounds as float32 does; settings are restored afterwards."""
    limit_onednn_caches()
    if torch.cuda.is_available() or not are_fast_matmuls_exact():
        yield
        return
    token = _FASTER.set(True)
    try:
        with _allow_fast_matmuls():
            yield
    finally:
        _FASTER.reset(token)


def are_matmuls_fast() -> bool:
    """Whether we are inside `fast_matmuls` and it has an effect on this machine."""
    return _FASTER.get()


@contextmanager
def plain_matmuls() -> Iterator[None]:
    """Within it matmuls run as they do in torch by default."""
    with _restore_precision_afterwards():
        if _general_matmul_precision() is not None:
            torch.set_float32_matmul_precision("highest")
        _onednn_settings().fp32_precision = "ieee"
        yield


@cache
def are_fast_matmuls_exact() -> bool:
    """Whether oneDNN's matmuls exist here and are no less exact than IEEE float32, against float64.

    The answer is kept for the process and does not depend on the user's current settings.
    """
    if not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    rng = torch.Generator().manual_seed(0)
    for m, k, n in _PROBED_MKN:
        left_MK, right_KN = torch.randn(m, k, generator=rng), torch.randn(k, n, generator=rng)
        truth_MN = left_MK.double() @ right_KN.double()
        with _restore_precision_afterwards():
            _onednn_settings().fp32_precision = "ieee"
            plain = (left_MK @ right_KN - truth_MN).abs().max()
        with _allow_fast_matmuls():
            fast = (left_MK @ right_KN - truth_MN).abs().max()
        if fast > _TOLERANCE * plain:
            return False
    return True


@contextmanager
def _allow_fast_matmuls() -> Iterator[None]:
    with _restore_precision_afterwards():
        if _general_matmul_precision() is None:
            _onednn_settings().fp32_precision = "bf16"
        else:  # alone, oneDNN's setting would contradict the general one, and torch would then refuse to report that
            torch.set_float32_matmul_precision("medium")
        yield


@contextmanager
def _restore_precision_afterwards() -> Iterator[None]:
    """Restore the general setting afterwards, and those of oneDNN and CUDA, which may differ from it."""
    onednn, cuda, general = _onednn_settings(), torch.backends.cuda.matmul, _general_matmul_precision()
    found = onednn.fp32_precision, cuda.fp32_precision
    try:
        yield
    finally:
        if general is not None:
            torch.set_float32_matmul_precision(general)
        onednn.fp32_precision, cuda.fp32_precision = found


def _general_matmul_precision() -> str | None:
    """torch's general setting; None where the user's specific settings contradict it."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _onednn_settings() -> Any:
    return torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # torch creates it at import
