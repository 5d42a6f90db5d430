"""Run by torch.distributed.run on two gloo ranks: optimizer steps under DeepSpeed's ZeRO-3, packed and padded."""

from __future__ import annotations

import itertools
import json
import os
import sys
from pathlib import Path

import torch
from datasets import Dataset, load_from_disk

from balanced_thinking.models.load import load_model
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.training.sft import ScaleSFTTrainer
from tests.conftest import ARCHITECTURES
from tests.tiny_training import config, logged, losses

ZERO_3 = {
    # Threshold 0: every parameter is in shards, however small.
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "zero_allow_untested_optimizer": True,
    "zero_force_ds_cpu_optimizer": False,
}
ZERO_2 = ZERO_3 | {"zero_optimization": {"stage": 2}}
STEPS = {"max_steps": 3, "learning_rate": 1e-3}


def without_some_pictures(rows: Dataset) -> Dataset:
    """Micro-batches of two of which some have none: then one rank runs the picture tower and the other does not."""
    return rows.map(lambda row, index: row | {"images": row["images"] if index in (2, 5) else []}, with_indices=True)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    rows = load_from_disk(str(folder / "rows"))
    cases = [(name, packing, rows) for name, packing in itertools.product(ARCHITECTURES, (False, True))]
    cases.append(("qwen2_5_vl", False, without_some_pictures(rows)))
    places = {name: folder / f"{name}-{os.environ['RANK']}" for name in ARCHITECTURES}
    for architecture, place in places.items():  # DeepSpeed is not switched on yet
        for part in build_tiny(architecture):
            part.save_pretrained(place)
    found = []
    for architecture, packing, data in cases:
        shape = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "packing": packing}
        args = config(folder / "out", deepspeed=ZERO_3, **shape, **STEPS)
        loaded = load_model(str(places[architecture]))  # sharded as it is loaded
        run = ScaleSFTTrainer(loaded.model, args, train_dataset=data, processing_class=loaded.processor)
        assert run.data_collator.packing == packing  # else packing's probe failed on the shards
        run.train()
        found.append((architecture, packing, data is rows, losses(run), logged(run, "grad_norm")))
    if run.is_world_process_zero():
        (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
