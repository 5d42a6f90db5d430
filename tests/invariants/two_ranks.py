"""Run by torch.distributed.run on two gloo ranks: one optimizer step for every architecture and `normalize` mode, and a
run that is resumed in the middle of its second epoch, for each way of ordering samples; and packed rows of a stream."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from datasets import load_from_disk

from balanced_thinking.weights import NORMALIZE
from tests.conftest import ARCHITECTURES
from tests.training import GradNorms, config, losses, trainer


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    rows = load_from_disk(str(folder / "rows"))
    found = {}
    for architecture in ARCHITECTURES:
        for normalize in NORMALIZE:
            run = trainer(
                architecture, rows, config(folder / "out", per_device_train_batch_size=4, normalize=normalize)
            )
            norms = GradNorms()
            run.add_callback(norms)
            run.train()
            found[f"{architecture}/{normalize}"] = (losses(run)[0], norms.norms[0])
    stream = config(folder / "stream", per_device_train_batch_size=4, max_steps=2, packing=True)
    streamed = trainer("qwen2_5_vl", rows.to_iterable_dataset(), stream)
    streamed.train()
    resumed = {}
    for strategy in ("random", "group_by_length"):
        about = {
            "max_steps": -1,
            "num_train_epochs": 2,
            "per_device_train_batch_size": 1,
            "train_sampling_strategy": strategy,
        }
        about |= {"save_strategy": "steps", "save_steps": 3, "learning_rate": 1e-3}
        whole = trainer("qwen2_5_vl", rows.select(range(8)), config(folder / strategy, **about))
        whole.train()
        again = trainer("qwen2_5_vl", rows.select(range(8)), config(folder / strategy, **about))
        again.train(resume_from_checkpoint=str(folder / strategy / "checkpoint-6"))
        resumed[strategy] = (losses(whole)[6:], losses(again)[6:])
    if run.is_world_process_zero():
        (folder / "resumed.json").write_text(json.dumps(resumed))
        (folder / "streamed.json").write_text(json.dumps(losses(streamed)))
        (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    # Only now that the wrapped models are gone: gloo hangs when they outlive their process group.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
