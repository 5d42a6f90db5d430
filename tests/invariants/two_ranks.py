"""Run on two gloo ranks: one optimizer step in every `normalize` mode; a run that is resumed in the middle of its
second epoch, for each way of ordering samples; and packed rows of a stream. `make test-ranks` has the longer cases.

What has nothing to do with pictures is trained on text alone, which takes half of the time.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, load_from_disk

from balanced_thinking.loss.variants import NORMALIZE
from tests.tiny_training import GradNorms, config, losses, trainer

# Name -> architecture and options.
CASES: dict[str, tuple[str, dict[str, Any]]] = {mode: ("qwen2", {"normalize": mode}) for mode in NORMALIZE}
_OF_TOKENS = {"closing_tag_factor": 4.0, "token_gate": "eaft", "token_gate_on": "think"}
CASES["example means, factors and gates"] = ("qwen2_5_vl", {"weighting": "example-mean", **_OF_TOKENS})
# With seven samples the last step of an epoch has one, so one of two ranks has none.
UNEVEN = 7
EPOCHS: dict[str, Any] = {"max_steps": -1, "num_train_epochs": 2}
STRATEGIES = ("random", "group_by_length", "sequential")


def rows_for(architecture: str, rows: Dataset) -> Dataset:
    return rows.remove_columns("images") if architecture == "qwen2" else rows


def logs_and_evaluation(rows: Dataset, out: Path, batch: int) -> list[dict[str, float]]:
    """What is logged of steps of `batch` examples a rank, and of an evaluation of five examples in twos: with two ranks
    the last round has one example and three that came before, of which the third is too long and dropped. The steps
    have two weights, under the schedule that follows the loss, and gradients of one norm."""
    about = {"schedule": "adaptive", "max_steps": 6, "adaptive_latest": 0.4, "overflow": "drop", "log_entropy": True}
    about |= {"answer_weight_start": 0.5, "answer_weight_end": 1.5, "match_gradient_norm": 0.3}
    limit = {"max_length": 200, "per_device_train_batch_size": batch, "per_device_eval_batch_size": 2}
    run = trainer("qwen2_5_vl", rows, config(out, **about, **limit), eval_dataset=rows.select(range(5)))
    run.train()
    run.evaluate()
    clocks = ("runtime", "per_second", "total_flos")  # the last one counts padding
    return [{k: v for k, v in e.items() if not any(c in k for c in clocks)} for e in run.state.log_history]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    rows = load_from_disk(str(folder / "rows"))
    found = {}
    for name, (architecture, options) in CASES.items():
        args = config(folder / "out", per_device_train_batch_size=4, **options)
        run = trainer(architecture, rows_for(architecture, rows), args)
        norms = GradNorms()
        run.add_callback(norms)
        run.train()
        found[name] = (losses(run)[0], norms.norms[0])
    stream = config(folder / "stream", per_device_train_batch_size=4, max_steps=2, packing=True)
    streamed = trainer("qwen2_5_vl", rows.to_iterable_dataset(), stream)
    streamed.train()
    logs = logs_and_evaluation(rows, folder / "logs", batch=4)
    resumed, texts = {}, rows_for("qwen2", rows).select(range(UNEVEN))
    for strategy in STRATEGIES:
        about = {**EPOCHS, "per_device_train_batch_size": 1, "train_sampling_strategy": strategy}
        about |= {"save_strategy": "steps", "save_steps": 6}
        undisturbed = trainer("qwen2", texts, config(folder / strategy, **about))
        undisturbed.train()
        again = trainer("qwen2", texts, config(folder / strategy, **about))
        again.train(resume_from_checkpoint=str(folder / strategy / "checkpoint-6"))
        resumed[strategy] = (losses(undisturbed), losses(again))
    if run.is_world_process_zero():
        (folder / "resumed.json").write_text(json.dumps(resumed))
        (folder / "logs.json").write_text(json.dumps(logs))
        (folder / "streamed.json").write_text(json.dumps(losses(streamed)))
        (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    # Only now that the wrapped models are gone: gloo hangs when they outlive their process group.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
