"""The GPUs that an estimate knows: memory, dense peak rates and bandwidths, as their makers publish them. No torch.

Shares of the peaks that a training reaches are assumptions. No GPU was measured yet, and every estimate says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from balanced_thinking.config.errors import BalancedThinkingError, UsageError
from balanced_thinking.config.names import did_you_mean

CPU = "cpu"
_TERA, _GIGA = 10**12, 10**9


class EstimateError(UsageError, ValueError):
    """This cannot be estimated: the message says what, and what to change."""


class NotFittingError(BalancedThinkingError, RuntimeError):
    """The training needs more memory than there is."""


@dataclass(frozen=True)
class Device:
    """A GPU, or this machine's CPU (`peak_flops` empty: its rates are measured).

    `memory_bytes` is what a process may use. `peak_flops` are dense products per second by dtype, `bandwidth` bytes a
    second from its memory, `link` bytes a second to another GPU of the machine, in one direction.
    """

    name: str
    memory_bytes: int
    peak_flops: Mapping[str, float]
    bandwidth: float
    link: float

    @property
    def is_cpu(self) -> bool:
        return not self.peak_flops

    @property
    def has_bfloat16(self) -> bool:
        return "bfloat16" in self.peak_flops


def _gpu(
    name: str, memory_gib: float, low: float, full: float, bandwidth: float, link: float, bf16: bool = True
) -> Device:
    """Rates in TFLOP/s (`low`: 16-bit with float32 sums, `full`: float32 without TF32) and GB/s."""
    peaks = {"float16": low * _TERA, "float32": full * _TERA} | ({"bfloat16": low * _TERA} if bf16 else {})
    return Device(name, int(memory_gib * 2**30), peaks, bandwidth * _GIGA, link * _GIGA)


# Of the makers' data sheets, dense (half of the figures "with sparsity"); memory as torch reports it, which is a little
# less than the name says.
GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("t4", 14.6, 65, 8.1, 300, 16, bf16=False),
        _gpu("v100", 31.7, 125, 15.7, 900, 150, bf16=False),
        _gpu("rtx3090", 23.6, 71, 35.6, 936, 32),
        _gpu("rtx4090", 23.5, 165, 82.6, 1008, 32),
        _gpu("rtx5090", 31.3, 209, 104.8, 1792, 64),
        _gpu("a10g", 22.1, 70, 35, 600, 32),
        _gpu("l4", 22.0, 121, 30.3, 300, 32),
        _gpu("l40s", 44.4, 362, 91.6, 864, 32),
        _gpu("a100-40gb", 39.4, 312, 19.5, 1555, 300),
        _gpu("a100", 79.1, 312, 19.5, 2039, 300),
        _gpu("h100", 79.1, 989, 66.9, 3350, 450),
        _gpu("h100-pcie", 79.1, 756, 51.2, 2000, 64),
        _gpu("h200", 139.8, 989, 66.9, 4800, 450),
        _gpu("b200", 178.3, 2250, 75, 8000, 900),
    )
}
SYNONYMS = {"a100-80gb": "a100", "h100-sxm": "h100", "3090": "rtx3090", "4090": "rtx4090", "5090": "rtx5090"}


def find_device(name: str) -> Device:
    """Raises EstimateError for a GPU that is not in the table."""
    wanted = name.lower()
    wanted = SYNONYMS.get(wanted, wanted)
    if wanted == CPU:
        return this_machine()
    if wanted not in GPUS:
        known = ", ".join((CPU, *GPUS))
        raise EstimateError(f"--gpu is {name!r}{did_you_mean(wanted, [CPU, *GPUS])}; known: {known}")
    return GPUS[wanted]


def this_machine() -> Device:
    """The CPU with the memory that is free in it."""
    import psutil

    return Device(CPU, int(psutil.virtual_memory().available), {}, 0.0, 0.0)
