"""Ranks that notice each other's end: two processes of gloo, without a model."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.forked import start_ranks

# What the second rank does while the first one waits for it in a collective, or in C for longer than anyone would.
PROGRAM = """
import os, sys, time
from types import SimpleNamespace
import torch
import torch.distributed as dist
from balanced_thinking.system.logs import log_to_stderr
from balanced_thinking.training import peers
from balanced_thinking.training.agreement import Agreement

peers._PATIENCE_SECONDS = 0.5
rank = int(os.environ["RANK"])
dist.init_process_group("gloo")
args = SimpleNamespace(world_size=2, process_index=rank, ddp_timeout=60)
trainer = SimpleNamespace(args=args)
agreement = Agreement(trainer)
watch = peers.PeerWatch(args, lambda: "the newest checkpoint is checkpoint-3")
case = sys.argv[1]
try:
    with log_to_stderr(), watch.watching_peers(), watch.watching_peers():
        assert agreement.any(rank == 1) and not agreement.any(False)
        if rank == 1 and case in ("killed", "hangs"):
            os.kill(os.getpid(), 9)
        if rank == 1 and case == "fails":
            raise ValueError("a row is bad")
        if case == "hangs":
            time.sleep(60)
        agreement.any(False)
except (peers.LostRankError, ValueError) as error:
    print(error)
    sys.stdout.flush()
    os._exit(1)
"""
ADVICE = "so this rank stops, too; the newest checkpoint is checkpoint-3"
CASES = {
    "ends": ((0, 0), ("", "")),
    "killed": ((1, -9), (f"rank 1 is gone (it was killed, or its machine was), {ADVICE}", "")),
    "fails": ((1, 1), (f"rank 1 stopped with an error, which it reports itself, {ADVICE}", "a row is bad")),
    "hangs": ((1, -9), (f"rank 1 is gone (it was killed, or its machine was), {ADVICE}", "")),
}


@pytest.mark.parametrize("case", CASES)
def test_a_rank_says_that_another_one_is_lost(case: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    started = start_ranks([sys.executable, str(tmp_path / "program.py"), case], 2, tmp_path)
    codes = tuple(rank.process.wait(60) for rank in started)
    assert (codes, tuple(rank.log.read_text().strip() for rank in started)) == CASES[case]
