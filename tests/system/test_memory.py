"""Peak memory: of one part of a process, not since its start."""

from __future__ import annotations

import os
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from balanced_thinking.system import memory


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="no way to let a peak begin anew here")
def test_the_peak_of_one_part_does_not_count_for_the_next() -> None:
    memory.reset_peak()
    before = memory.peak_mib()
    large = np.ones(2**25)  # 256 MiB, and given back to the system when it goes
    assert memory.peak_mib() >= before + 200
    del large
    memory.reset_peak()
    assert memory.peak_mib() < before + 100


def test_without_proc_the_peak_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = memory.peak_mib()
    monkeypatch.setattr(memory, "_PROC", tmp_path)
    memory.reset_peak()
    assert memory.peak_mib() >= 0.9 * here > 0


def test_on_cuda_the_peak_is_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    reset = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", {"cuda:1": 5 * 2**20}.__getitem__)
    memory.reset_peak()
    assert reset == [0, 1]
    assert memory.peak_mib("cuda:1") == 5


@pytest.mark.parametrize("started", [False, True])
def test_memory_is_handed_back_by_a_gpu_that_was_used(monkeypatch: pytest.MonkeyPatch, started: bool) -> None:
    class Ring:
        def __init__(self) -> None:
            self.own = self  # only a collection frees it

    asked, ring = [], Ring()
    freed = weakref.ref(ring)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: started)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: asked.append(freed()))
    del ring
    memory.free_device_memory()
    assert asked == ([None] if started else []), "emptied after the collection, and only where a GPU is in use"
    assert freed() is None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), "CUDA out of memory. Tried"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2147483648 bytes."),
            "2.0 GiB",
        ),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1610612736 bytes."), "1.5 GiB"),
        (RuntimeError("Caught RuntimeError in worker 0.\n  File x\ncan't allocate memory"), "memory: can't allocate"),
        (RuntimeError("CUDA error: out of memory\nCompile with ..."), "memory: CUDA error: out of memory"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), "memory: MPS backend"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "memory: CUDA error"),
        (RuntimeError("std::bad_alloc"), "memory: std::bad_alloc"),
        (RuntimeError("unable to mmap 9 bytes: Cannot allocate memory (12)"), "memory: unable to mmap"),
        (OSError(12, "Cannot allocate memory"), "memory: [Errno 12]"),
        (MemoryError(), "out of memory"),
        (MemoryError("Unable to allocate 46. GiB for an array"), "memory: Unable to allocate 46. GiB"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (RuntimeError("could not allocate a port"), None),
        (ValueError("a room of memory"), None),
    ],
)
def test_every_way_of_having_too_little_memory_is_one_line(error: Exception, said: str | None) -> None:
    found = memory.describe_memory_error(error)
    assert (found is None) == (said is None)
    assert said is None or (said in str(found) and "\n" not in str(found))
