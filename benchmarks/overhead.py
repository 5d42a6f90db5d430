"""What SCALe costs over plain SFT: whole training steps of one trainer on one batch, weighted in turn.

    python benchmarks/overhead.py [--size tiny|small] [--pairs 160] [--json FILE]

Command of record: python benchmarks/overhead.py --json benchmarks/results/overhead-cpu.json (2 CPU cores, 2 minutes).
Both steps forward and backward the same packed batch; only the weights of its tokens differ. Expected: at most 1 %;
with fewer pairs the median wavers by more than that.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from typing import Any

import torch

from balanced_thinking.cpu.attention import fast_matmuls_and_attention
from harness import options_of, record, spread
from sft_step import BATCHES, build, make_trainer, rows

TARGET = 1.01


def seconds(trainer: Any, batch: dict[str, Any], weighting: str) -> float:
    """CPU seconds of a forward and backward (wall seconds on a GPU)."""
    trainer.args.weighting = weighting
    trainer.model.zero_grad()
    counts = trainer._get_num_items_in_batch([batch], trainer.args.device)
    gpu = trainer.args.device.type == "cuda"
    clock = time.perf_counter if gpu else time.process_time
    start = clock()
    trainer.training_step(trainer.model, batch, counts)
    if gpu:
        torch.cuda.synchronize()
    return clock() - start


def main() -> int:
    parser = options_of(__doc__, ())
    parser.add_argument("--size", choices=tuple(BATCHES), default="tiny", help="of the model (default tiny)")
    parser.add_argument("--pairs", type=int, default=160, help="steps of each kind (default 160)")
    options = parser.parse_args()
    options.steps = 1
    torch.set_num_threads(options.threads)
    model, processor = build(options.size, options.device)
    data = rows(BATCHES[options.size], None)
    with tempfile.TemporaryDirectory() as folder, fast_matmuls_and_attention():
        trainer = make_trainer("packed", options, model, processor, data, folder)
        trainer.state.max_steps = options.pairs
        batch = next(iter(trainer.get_train_dataloader()))
        ratios = []
        for pair in range(-2, options.pairs):
            order = ("scale", "uniform") if pair % 2 else ("uniform", "scale")
            taken = {weighting: seconds(trainer, batch, weighting) for weighting in order}
            if pair >= 0:  # two of warm-up
                ratios.append(taken["scale"] / taken["uniform"])
    result = spread(ratios) | {"mean": statistics.mean(ratios)}
    middle = sorted(ratios)[len(ratios) // 4], sorted(ratios)[-len(ratios) // 4]
    passed = result["median"] <= TARGET
    print(
        f"{'PASS' if passed else 'FAIL'} a step of SCALe takes {result['median']:.4f} of one of plain SFT "
        f"(half of {len(ratios)} pairs within {middle[0]:.4f} to {middle[1]:.4f}), at most {TARGET:.2f}"
    )
    record(__file__, options, {"scale_to_uniform": result}, size=options.size, pairs=options.pairs)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
