"""Peak memory of a part of a process, in MiB: that of a GPU, or that of the process itself."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc/self")


def reset_peak() -> None:
    """Start a new measurement. On systems without a reset, the process's peak counts from its start."""
    import torch

    if torch.cuda.is_initialized():
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        (_PROC / "clear_refs").write_text("5")  # Linux: VmHWM starts again from the memory now in use


def peak_mib(device: str = "cpu") -> int:
    """The peak since the last reset: memory allocated on a CUDA device, or resident memory of this process."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device) / 2**20)
    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB", (_PROC / "status").read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found:
        return int(found[1]) // 2**10
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().peak_wset / 2**20)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, KiB elsewhere
    return int(peak / (2**20 if sys.platform == "darwin" else 2**10))
