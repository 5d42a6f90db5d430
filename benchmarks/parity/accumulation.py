"""One optimizer step on the same eight rows, as one batch of 8 and as eight micro-batches of 1: ours and TRL's loss.

    PYTHONPATH=benchmarks python benchmarks/parity/accumulation.py

A tiny Qwen2.5-VL, plain SFT, pictures and reasoning of very different length, float32. The loss of the step is compared
before the model has changed, so both divisions should have the same. Exit code 1 if ours differs by more than 1e-5.
"""

from __future__ import annotations

import json
import sys
import tempfile
from types import SimpleNamespace

from sft_step import build, make_trainer, rows

ROWS, MOST_DIFFERENCE = 8, 1e-5
DIVISIONS = {"one batch of 8": (ROWS, 1), "eight of 1": (1, ROWS)}


def loss_of_step(contestant: str, batch: int, accumulation: int) -> float:
    model, processor = build("tiny", "cpu")
    options = SimpleNamespace(size="tiny", steps=0, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        division = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
        trainer = make_trainer(contestant, options, model, processor, rows(ROWS, None), folder, **division)
        trainer.train()
    return float(trainer.state.log_history[0]["loss"])


def main() -> int:
    found = {
        contestant: {name: loss_of_step(contestant, *division) for name, division in DIVISIONS.items()}
        for contestant in ("uniform", "trl")
    }
    print(json.dumps(found, indent=2))
    losses = found["uniform"].values()
    return int(max(losses) - min(losses) > MOST_DIFFERENCE)


if __name__ == "__main__":
    sys.exit(main())
