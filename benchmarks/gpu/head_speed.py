"""The head and its peers as in `head.py`: time and memory of a forward and backward at one shape."""

from __future__ import annotations

from gpu.rows import Emit, Row, Setting, contestant, emit_figures
from head import BASELINE, DTYPES, Shape, contestants, measure_shape

SHAPE, SMALL_SHAPE = Shape(2048, 151_936, 8192, 0.5), Shape(32, 1000, 64, 0.5)
ITERATIONS = 5
FIGURES = {"seconds": "s", "peak_mib": "MiB"}
_ABSENT = "not installed and not in the bundle"
_LEFT_OUT = {"liger": _ABSENT, "cce": _ABSENT, "torch_fused": "torch has it since 2.13"}
LEARNING_ONLY = ("three_products",)  # its products are those of a head that learns


def measure(setting: Setting, emit: Emit) -> None:
    """Each contestant against TRL's, for a head that learns and for a frozen one, as with LoRA."""
    for frozen in (False, True):
        of_baseline: dict[str, float] = {}
        names = [name for name in contestants(setting.device) if not frozen or name not in LEARNING_ONLY]
        for name in sorted(names, key=lambda name: name != BASELINE):
            title = f"{name}{', head frozen' * frozen}"
            with contestant(emit, title):
                found = _measure_contestant(name, setting, frozen)
                emit_figures(title, found, of_baseline, FIGURES, BASELINE, emit)
                of_baseline = of_baseline or (found if name == BASELINE else {})
    for name, why in _LEFT_OUT.items():
        if name not in names and not (setting.small and name != "torch_fused"):
            emit(Row(name, None, note=f"left out: {why}"))


def _measure_contestant(name: str, setting: Setting, frozen: bool) -> dict[str, float]:
    shape, iterations = (SMALL_SHAPE, 1) if setting.small else (SHAPE, ITERATIONS)
    return measure_shape(name, shape, setting.device, DTYPES[setting.device], frozen, iterations)
