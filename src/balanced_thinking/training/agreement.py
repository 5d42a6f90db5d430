"""What the ranks of a training agree on while it runs: whether to stop, and whether one of them has met an error."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist


class Agreement:
    """Questions that all ranks of a training ask at the same points, and whose answer is the same on all of them.

    They go through a gloo group of their own, on the CPU, so that the GPU waits for nothing. One process: no cost.
    Every rank must construct it at the same point.
    """

    def __init__(self, trainer: Any) -> None:
        args = trainer.args
        several = args.world_size > 1 and dist.is_available() and dist.is_initialized()
        self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=args.ddp_timeout)) if several else None

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank. Raises RuntimeError where a rank is gone."""
        if self._group is None:
            return flag
        found = torch.tensor(int(flag), dtype=torch.int32)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self._group)
        return bool(found)
