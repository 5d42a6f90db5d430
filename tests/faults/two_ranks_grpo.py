"""Run by torch.distributed.run on two gloo ranks: GRPO resumed within its generation cycles is the undisturbed run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from tests.faults.test_grpo_steps import rows
from tests.training.test_grpo import config, metrics_of, trainer

OPTIONS: dict[str, Any] = {
    "save_strategy": "steps",
    "save_steps": 1,
    "logging_steps": 2,
    "max_steps": 6,
    "max_completion_length": 6,
    "per_device_train_batch_size": 2,
    "steps_per_generation": 2,
    "num_iterations": 2,
    "gradient_accumulation_steps": 1,
}


def main(folder: Path) -> None:
    data = rows()
    undisturbed = trainer("qwen2_5_vl", data, config(folder / "all", **OPTIONS))
    undisturbed.train()
    for step in (1, 2, 3, 5):
        resumed = trainer("qwen2_5_vl", data, config(folder / f"from-{step}", **OPTIONS))
        resumed.train(resume_from_checkpoint=str(folder / f"all/checkpoint-{step}"))
        assert metrics_of(resumed) == metrics_of(undisturbed), step
        pairs = zip(undisturbed.model.state_dict().items(), resumed.model.state_dict().values(), strict=True)
        for (name, a), b in pairs:
            assert torch.equal(a, b), (step, name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
