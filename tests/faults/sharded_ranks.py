"""Run on some ranks of gloo: a training whose parameters, optimizer and checkpoints are sharded, by FSDP2 or ZeRO-3."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from datasets import load_from_disk
from peft import LoraConfig
from torch.distributed.checkpoint import FileSystemWriter
from transformers import TrainerCallback
from transformers.trainer_utils import set_seed

from balanced_thinking.config.errors import BalancedThinkingError
from balanced_thinking.models.load import load_model
from balanced_thinking.training.final_model import save_final_model
from balanced_thinking.training.sft import ScaleSFTTrainer
from tests.invariants.two_ranks_zero import ZERO_2, ZERO_3
from tests.tiny_training import config, losses

SAMPLES = 4  # a step, over all ranks
SAVING = {"save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "linear", "save_total_limit": 4}


def allow_fsdp_on_cpus() -> None:
    """accelerate takes a plugin of FSDP for GPUs only; all that it does then works on CPUs, too."""
    prepare = AcceleratorState.__init__

    def prepare_fsdp(self: Any, *args: Any, **kwargs: Any) -> None:
        new = not self._shared_state.get("fsdp_plugin")
        prepare(self, *args, **kwargs)
        if new and (plugin := kwargs.get("fsdp_plugin")) is not None:
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            self._shared_state |= {"distributed_type": DistributedType.FSDP, "fsdp_plugin": plugin}

    AcceleratorState.__init__ = prepare_fsdp


def fail_saving(run: ScaleSFTTrainer, failing: str) -> None:
    """The disk refuses a file of the third checkpoint, on the last rank only: of its shard, or its random state."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"of-rank-{run.args.process_index}")

    class Failing(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3 and args.process_index == args.world_size - 1:
                owner, name = (FileSystemWriter, "write_data") if failing == "shard" else (run, "_save_rng_state")
                setattr(owner, name, refuse)

    run.add_callback(Failing())


def sharding_arguments(kind: str) -> dict[str, Any]:
    if kind == "plain":
        return {}
    if kind in ("zero", "zero2"):
        return {"deepspeed": ZERO_3 if kind == "zero" else ZERO_2}
    allow_fsdp_on_cpus()
    return {"fsdp": True, "fsdp_config": {"state_dict_type": kind}}


def main(folder: Path, out: Path, case: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    shape = {"max_steps": 6, "per_device_train_batch_size": SAMPLES // int(os.environ["WORLD_SIZE"])}
    options = {**SAVING, **shape, **sharding_arguments(case["kind"]), **case.get("options", {})}
    args = config(out / "checkpoints", **options)
    set_seed(args.seed)
    loaded = load_model(str(folder / "model"))
    more = {"peft_config": LoraConfig(target_modules="all-linear")} if case.get("lora") else {}
    rows = load_from_disk(str(folder / "rows"))
    run = ScaleSFTTrainer(loaded.model, args, train_dataset=rows, processing_class=loaded.processor, **more)
    if failing := case.get("failing"):
        fail_saving(run, failing)
    try:
        run.train(resume_from_checkpoint=case.get("resume", False))
    except BalancedThinkingError as error:  # as the command line does
        print(f"Error: {error}", file=sys.stderr, flush=True)
        os._exit(3)
    assert (run.is_fsdp_enabled, run.is_deepspeed_enabled) == ("STATE_DICT" in case["kind"], case["kind"] == "zero")
    if run.is_world_process_zero():
        (out / "losses.json").write_text(json.dumps(losses(run)))
    save_final_model(run, loaded, out / "model")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
