"""A step of GRPO as in `grpo.py`: ours against TRL's GRPOTrainer on the same prompts with pictures."""

from __future__ import annotations

import argparse

from gpu.rows import Emit, Setting, contestant, emit_figures
from grpo import measure as measure_steps

CONTESTANTS = ("trl", "ours")
FIGURES = {"seconds_per_step": "s a step", "peak_mib": "MiB"}


def measure(setting: Setting, emit: Emit) -> None:
    size, side, tokens = ("tiny", 56, 4) if setting.small else ("3b", 448, 96)
    options = argparse.Namespace(size=size, side=side, tokens=tokens, device=setting.device)
    of_baseline: dict[str, float] = {}
    for name in CONTESTANTS:
        with contestant(emit, name):
            found = dict(measure_steps(name, options))
            of_baseline = emit_figures(name, found, of_baseline, FIGURES, CONTESTANTS[0], emit)
