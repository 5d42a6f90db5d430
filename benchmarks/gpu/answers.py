"""Answers as in `generation.py`: `balanced eval`'s generator against transformers' `generate`, tokens per second."""

from __future__ import annotations

import argparse

from generation import measure as measure_answers
from gpu.rows import Emit, Setting, contestant, emit_figures

CONTESTANTS = ("transformers", "ours")
FIGURES = {"tokens_per_second": "tokens/s", "peak_mib": "MiB"}


def measure(setting: Setting, emit: Emit) -> None:
    size, examples, batch, median, most = ("tiny", 3, 2, 4, 9) if setting.small else ("3b", 64, 32, 96, 256)
    options = argparse.Namespace(
        size=size, examples=examples, batch=batch, median_tokens=median, most_tokens=most, device=setting.device
    )
    of_baseline: dict[str, float] = {}
    for name in CONTESTANTS:
        with contestant(emit, name):
            found = dict(measure_answers(name, options))
            of_baseline = emit_figures(name, found, of_baseline, FIGURES, CONTESTANTS[0], emit)
