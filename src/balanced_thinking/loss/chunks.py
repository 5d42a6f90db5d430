"""How the supervised tokens of a call are cut into chunks, and how large a chunk may be.

Shapes: V vocabulary, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor


class ChunkPolicy(NamedTuple):
    """How many rows of logits are held at once."""

    chunk_bytes: int  # for the matrix products
    min_rows: int  # fewer rows make a product inefficient, so this overrides the bytes
    # For the element-wise work: bounds float32 copies and the softcap's derivative, and on a CPU fits its last cache.
    block_bytes: int


CPU_POLICY = ChunkPolicy(chunk_bytes=160 * 2**20, min_rows=64, block_bytes=4 * 2**20)
GPU_POLICY = ChunkPolicy(chunk_bytes=2 * 2**30, min_rows=2048, block_bytes=256 * 2**20)
# A divisor of the card's memory. Every chunk after the first reads and writes the float32 gradient of the head again,
# so a large card uses larger chunks.
_CHUNK_SHARE = 32


class AssumedDevice(NamedTuple):
    """What tensors without numbers stand for: how a device cuts its chunks, and autocast's dtype on it, if any."""

    policy: ChunkPolicy = GPU_POLICY
    autocast: torch.dtype | None = None


_META_DEVICE: ContextVar[AssumedDevice] = ContextVar("of_meta", default=AssumedDevice())  # noqa: B039  (immutable)


def chunk_policy(device: torch.device) -> ChunkPolicy:
    """The policy of a device; that of a CUDA device grows with its memory."""
    if device.type == "cpu":
        return CPU_POLICY
    if device.type == "meta":
        return _META_DEVICE.get().policy
    if device.type != "cuda":
        return GPU_POLICY
    return gpu_policy(torch.cuda.get_device_properties(device).total_memory)


def gpu_policy(memory_bytes: int) -> ChunkPolicy:
    """The policy of a CUDA device with so much memory."""
    return GPU_POLICY._replace(chunk_bytes=max(GPU_POLICY.chunk_bytes, memory_bytes // _CHUNK_SHARE))


@contextmanager
def assume_device(device: AssumedDevice) -> Iterator[None]:
    """Within it tensors on torch's meta device are treated as those of this device."""
    token = _META_DEVICE.set(device)
    try:
        yield
    finally:
        _META_DEVICE.reset(token)


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype of products under autocast on a device; None without autocast."""
    if device.type == "meta":
        return _META_DEVICE.get().autocast
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None


class Chunk(NamedTuple):
    """Consecutive rows of the supervised tokens, and whether they need a gradient."""

    start: int
    rows: int
    has_grad: bool


def cut_into_chunks(weighted: int, supervised: int, head_VD: Tensor, dtype: torch.dtype) -> list[Chunk]:
    """Cut the rows into chunks of nearly equal size: first those that get a gradient, then those only scored."""
    policy = chunk_policy(head_VD.device)
    most = max(policy.min_rows, policy.chunk_bytes // (len(head_VD) * dtype.itemsize))
    groups = ((0, weighted, True), (weighted, supervised, False))
    return [
        Chunk(start, rows, grad) for first, last, grad in groups for start, rows in balanced_spans(first, last, most)
    ]


def balanced_spans(first: int, last: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield (start, rows) over [first, last): at most `most` rows each, and sizes that differ by at most one."""
    count = -(-(last - first) // most)
    edges = [first + (last - first) * i // count for i in range(count + 1)] if count else []
    return ((start, stop - start) for start, stop in pairwise(edges))


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """float32 for lower precisions, float64 as it is."""
    return torch.promote_types(dtype, torch.float32)
