"""A training step as in `sft_step.py`: ours against TRL's SFTTrainer on the same rows, a 3B-shaped model on a GPU."""

from __future__ import annotations

import argparse

from gpu.rows import Emit, Setting, contestant, emit_figures
from sft_step import measure as measure_steps

CONTESTANTS = ("trl", "packed", "padded")
FIGURES = {"tokens_per_second": "supervised tokens/s", "peak_mib": "MiB"}


def measure(setting: Setting, emit: Emit) -> None:
    size, batch, steps = ("tiny", 2, 1) if setting.small else ("3b", 8, 3)
    sizes = {"size": size, "batch": batch, "steps": steps, "lengths": "ragged"}
    options = argparse.Namespace(
        **sizes, accumulation=1, ranks=1, workers=0, threads=setting.threads, device=setting.device
    )
    of_baseline: dict[str, float] = {}
    for name in CONTESTANTS:
        with contestant(emit, name):
            found = dict(measure_steps(name, options))
            of_baseline = emit_figures(name, found, of_baseline, FIGURES, CONTESTANTS[0], emit)
