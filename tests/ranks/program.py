"""Run on some ranks of gloo, or in one plain process: trainings in one start of processes, which is what takes time."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from datasets import load_from_disk
from peft import LoraConfig
from transformers.trainer_utils import set_seed

from balanced_thinking.models.load import load_model
from balanced_thinking.training.sft import ScaleSFTTrainer
from tests.faults.sharded_ranks import sharding_arguments
from tests.ranks.cases import EXACT, FEATURES, KEPT, SAMPLES, SAVED, STEPS, Case
from tests.tiny_training import config, logged, losses

RESUMED = "resumed from "  # before the kind and the ranks that have saved
_SHARDING = {"plain": "plain", "ddp": "plain", "fsdp2": "SHARDED_STATE_DICT", "zero2": "zero2", "zero3": "zero"}


def find_case(name: str) -> Case:
    return SAVED if name == "saved" or name.startswith(RESUMED) else (EXACT | FEATURES)[name]


def make_trainer(folder: Path, out: Path, case: Case, kind: str, dtype: torch.dtype) -> ScaleSFTTrainer:
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    accumulation = 2 if ranks == 2 else 1
    shape = {
        "per_device_train_batch_size": SAMPLES // ranks // accumulation,
        "gradient_accumulation_steps": accumulation,
    }
    shape |= {"max_steps": STEPS, "max_grad_norm": 1.0, "lr_scheduler_type": "linear"}
    args = config(out, **shape, **sharding_arguments(_SHARDING[kind]), **case.options)
    set_seed(args.seed)
    loaded = load_model(str(folder / case.architecture), dtype=dtype)
    more = {"peft_config": LoraConfig(target_modules="all-linear", r=4)} if case.lora else {}
    rows = load_from_disk(str(folder / case.data))
    made = ScaleSFTTrainer(loaded.model, args, train_dataset=rows, processing_class=loaded.processor, **more)
    if case.offload:
        made.maybe_activation_offload_context = torch.autograd.graph.save_on_cpu()
    return made


def train_case(folder: Path, name: str, kind: str, dtype: torch.dtype) -> dict[str, Any]:
    """Losses and gradient norms of every step; or why it was refused, before the first one."""
    case, first, began = find_case(name), int(os.environ.get("RANK", "0")) == 0, time.process_time()
    out = folder / "saved" / f"{kind}-{os.environ.get('WORLD_SIZE', '1')}" if name == "saved" else folder / "out"
    resume: Any = None
    if name.startswith(RESUMED):
        resume = str(folder / "saved" / name.removeprefix(RESUMED) / f"checkpoint-{KEPT}")
    trained = None
    try:
        trained = make_trainer(folder, out, case, kind, dtype)
        trained.train(resume_from_checkpoint=resume)
    except Exception as error:
        if trained is not None and trained.state.global_step:
            raise
        traceback.print_exc()
        return {"refused": f"{type(error).__name__}: {error}"}
    if resume is None and name == "saved" and first:
        shutil.rmtree(out / f"checkpoint-{STEPS}", ignore_errors=True)
    seconds = time.process_time() - began
    return {"losses": losses(trained), "norms": logged(trained, "grad_norm"), "cpu_seconds": round(seconds, 1)}


def use_gloo_alone() -> None:
    """DeepSpeed would compile an operator for shared memory, and wait for ever where a compilation was killed."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def main(folder: Path, kind: str, names: list[str], dtype: torch.dtype) -> None:
    torch.set_num_threads(1)
    if kind.startswith("zero"):
        del os.environ["ACCELERATE_USE_CPU"]  # use_cpu starts gloo; with this one, too, accelerate forgets DeepSpeed
        use_gloo_alone()
    ranks = os.environ.get("WORLD_SIZE", "0")
    file = folder / f"found-{kind}-{ranks}-{str(dtype).removeprefix('torch.')}.json"
    found: dict[str, Any] = {}
    for name in names:
        found[name] = train_case(folder, name, kind, dtype)
        if os.environ.get("RANK", "0") == "0":  # as they come: a case that hangs hides no other
            file.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), getattr(torch, sys.argv[4]))
    if torch.distributed.is_initialized():
        # Only now that the wrapped models are gone: gloo hangs when they outlive their process group.
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
