"""Whether cost grows in proportion: a training step with its supervised tokens, the input pipeline with its samples.

    python benchmarks/scaling.py [--rounds 3] [--json FILE] [--svg FILE]

Command of record: python benchmarks/scaling.py --json benchmarks/results/scaling-cpu.json --svg
benchmarks/results/scaling-cpu.svg (2 CPU cores, 3 minutes). Each is measured at 1, 2, 4, 8 and 16 times the smallest
load, in turn; the exponent is the slope of log cost over log load, 1 where cost is proportional.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.cpu.attention import fast_matmuls_and_attention
from harness import options_of, record, spread
from sft_step import build, make_trainer, rows

FACTORS = (1, 2, 4, 8, 16)
STEP_SAMPLES, PIPELINE_SAMPLES = 4, 8
TARGET = 1.1


def step_cost(options: Any, folder: str) -> Callable[[int], tuple[float, float]]:
    """factor -> (supervised tokens, CPU seconds) of a packed training step."""
    options.size, options.steps = "tiny", 1
    model, processor = build("tiny", options.device)
    data = rows(STEP_SAMPLES, None)
    trainer = make_trainer("packed", options, model, processor, data, folder)
    trainer.state.max_steps = 1

    def cost(factor: int) -> tuple[float, float]:
        # The same rows again and again, so that only their number changes.
        batch = trainer.data_collator([data[i] for i in range(STEP_SAMPLES)] * factor)
        counts = trainer._get_num_items_in_batch([batch], trainer.args.device)
        model.zero_grad()
        start = time.process_time()
        trainer.training_step(trainer.model, batch, counts)
        return float((batch["labels"] != -100).sum()), time.process_time() - start

    return cost


def pipeline_cost() -> Callable[[int], tuple[float, float]]:
    """factor -> (samples, CPU seconds) from rows to batches of 8."""
    _, processor = build("tiny", "cpu")
    data, collator = rows(PIPELINE_SAMPLES, 448), ScaleCollator(processor)

    def cost(factor: int) -> tuple[float, float]:
        start = time.process_time()
        for _ in range(factor):
            collator([data[i] for i in range(PIPELINE_SAMPLES)])
        return float(factor * PIPELINE_SAMPLES), time.process_time() - start

    return cost


def main() -> int:
    parser = options_of(__doc__, (), rounds=3, devices=("cpu",))
    parser.add_argument("--svg", type=Path, help="draw both here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found: dict[str, dict[int, list[tuple[float, float]]]] = {}
    with tempfile.TemporaryDirectory() as folder, fast_matmuls_and_attention():
        costs = {"training step": step_cost(options, folder), "input pipeline": pipeline_cost()}
        for name, cost in costs.items():
            cost(1)  # of warm-up
            found[name] = {factor: [] for factor in FACTORS}
            for round_ in range(options.rounds):
                for factor in FACTORS[:: 1 if round_ % 2 == 0 else -1]:
                    found[name][factor].append(cost(factor))
    results = {name: summarize(by_factor) for name, by_factor in found.items()}
    for name, result in results.items():
        print(f"{'PASS' if result['exponent'] <= TARGET else 'FAIL'} {name}: exponent {result['exponent']:.3f}")
    if options.svg:
        draw(results, options.svg)
    record(__file__, options, results)
    return 0 if all(result["exponent"] <= TARGET for result in results.values()) else 1


def summarize(by_factor: dict[int, list[tuple[float, float]]]) -> dict[str, Any]:
    loads = [samples[0][0] for samples in by_factor.values()]
    seconds = [spread([second for _, second in samples]) for samples in by_factor.values()]
    slope = np.polyfit(np.log(loads), np.log([s["median"] for s in seconds]), 1)[0]
    return {"load": loads, "cpu_seconds": seconds, "exponent": float(slope)}


def draw(results: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    units = {"training step": "supervised tokens", "input pipeline": "samples"}
    for axes, (name, result) in zip(figure.subplots(1, 2), results.items(), strict=True):
        medians = [s["median"] for s in result["cpu_seconds"]]
        axes.plot(result["load"], medians, "o-", label=f"measured, exponent {result['exponent']:.2f}")
        axes.plot(
            result["load"], [medians[0] * n / result["load"][0] for n in result["load"]], "--", label="in proportion"
        )
        axes.set(title=name, xlabel=units[name], ylabel="CPU seconds", xscale="log", yscale="log")
        axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
