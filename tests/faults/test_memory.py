"""A training whose memory is really limited: `auto_batch` finds a micro-batch that fits, and says what did not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.faults
REPOSITORY = Path(__file__).resolve().parents[2]
LIMITED = """
import json, logging, resource, sys
from pathlib import Path
import torch
from balanced_thinking.runs.paths import RunFiles
from balanced_thinking.training.memory_watch import MemoryWatch
from balanced_thinking.training.recipe import Recipe, load_recipe
from balanced_thinking.training.run import train

logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(message)s")
torch.set_num_threads(1)
folder, spare_mib, auto = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "auto"
start = MemoryWatch.train

def train_with_little(self, *args, **kwargs):
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + spare_mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        return start(self, *args, **kwargs)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

MemoryWatch.train = train_with_little
settings = {"max_steps": 2, "per_device_train_batch_size": 32, "save_strategy": "no", "use_cpu": True, "seed": 3}
settings |= {"gradient_checkpointing": False, "disable_tqdm": True, "logging_steps": 1}
recipe = Recipe(model="tiny:qwen2", data=str(folder / "rows.jsonl"), auto_batch=auto, training=settings)
try:
    train(recipe, folder / "run")
    print("FOUND", json.dumps(load_recipe(RunFiles(folder / "run").config).training))
except MemoryError as error:
    print("STOPPED", type(error).__name__, error)
"""


def _run_limited(folder: Path, spare_mib: int, auto: str) -> str:
    rows = [
        {"id": f"r{i}", "question": f"Is {i} red?", "think": "It is one. " * (100 + 5 * i), "answer": "no"}
        for i in range(64)
    ]
    folder.mkdir()
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = [sys.executable, "-c", LIMITED, str(folder), str(spare_mib), auto]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600, check=False)
    assert found.returncode == 0, found.stderr[-2000:]
    return found.stdout


def test_a_real_lack_of_memory_ends_in_a_micro_batch_that_fits_or_in_one_sentence(tmp_path: Path) -> None:
    said = _run_limited(tmp_path / "auto", 400, "auto")
    found = json.loads(said.partition("FOUND ")[2])
    micro_batch, accumulation = found["per_device_train_batch_size"], found["gradient_accumulation_steps"]
    assert micro_batch * accumulation == 32
    assert micro_batch < 32
    assert said.count("the run goes on with") >= 1
    stopped = _run_limited(tmp_path / "plain", 400, "plain")
    assert "STOPPED TrainingMemoryError out of memory" in stopped
    assert "while training in step 1, micro-batch 1 of 1: 32 x" in stopped
    assert "per_device_train_batch_size 16 (is 32) and gradient_accumulation_steps 2 (is 1)" in stopped
