"""Run on some ranks of gloo: a command of `balanced`, in the environment that `accelerate launch` gives a rank."""

from __future__ import annotations

import os
import sys

import torch

from balanced_thinking.cli import main
from tests.faults.sharded_ranks import allow_fsdp_on_cpus
from tests.ranks.program import use_gloo_alone

if __name__ == "__main__":
    torch.set_num_threads(1)
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        allow_fsdp_on_cpus()
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        use_gloo_alone()
    code = main(sys.argv[1:])
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    sys.exit(code)
