"""Memory of a GPU or of the process itself: the peak of a part in MiB, errors for lack of it, and handing it back."""

from __future__ import annotations

import gc
import re
import sys
from contextlib import suppress
from pathlib import Path

from balanced_thinking.system.known_errors import describe_message

_PROC = Path("/proc/self")
# How libraries say it in an error that has no type of its own. torch on a CPU gives the number of bytes.
_LACKS_MEMORY = re.compile(
    r"can't allocate memory|cannot allocate memory|not enough memory|\bout of memory|ALLOC_FAILED|bad_alloc",
    re.IGNORECASE,
)
_ASKED_BYTES = re.compile(r"tried to allocate (\d+) bytes")


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


def free_device_memory() -> None:
    """Collect what nothing refers to any more, and hand back what this leaves in the allocator of a GPU."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def describe_memory_error(error: BaseException) -> str | None:
    """One line for an error that means too little memory, on a GPU or a CPU; None for any other error."""
    text = describe_message(error)
    if type(error).__name__ == "OutOfMemoryError":  # torch's own, for a GPU
        return text
    if not isinstance(error, MemoryError) and not _LACKS_MEMORY.search(text):
        return None
    if asked := _ASKED_BYTES.search(text):
        return f"out of memory: {int(asked[1]) / 2**30:,.1f} GiB were needed at once"
    said = next((line for line in text.splitlines() if _LACKS_MEMORY.search(line)), text)
    return f"out of memory: {said}" if said else "out of memory"
