"""GRPO resumes at every step of two generation cycles, within a logging period or not: weights, optimizer, metrics."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from peft import LoraConfig

from balanced_thinking.data.rows import to_prompts_dataset
from balanced_thinking.data.world import load
from tests.conftest import REPOSITORY
from tests.faults.outcome import _digests, _state_text
from tests.faults.tally import Tally
from tests.training.test_grpo import config, metrics_of, trainer

_BASE = {"save_strategy": "steps", "save_steps": 1, "max_completion_length": 6, "logging_steps": 3}
SHAPES: dict[str, dict[str, Any]] = {
    "num_iterations 2": {"steps_per_generation": 2, "num_iterations": 2, "gradient_accumulation_steps": 1},
    "four steps a cycle": {"steps_per_generation": 4, "num_iterations": 1, "gradient_accumulation_steps": 1},
    "a step that spans two cycles": {"steps_per_generation": 2, "num_iterations": 2, "gradient_accumulation_steps": 3},
    "mask_truncated_completions": {"steps_per_generation": 2, "num_iterations": 2, "gradient_accumulation_steps": 1}
    | {"mask_truncated_completions": True, "log_completions": True},
    "LoRA with a reference model": {"steps_per_generation": 2, "num_iterations": 2, "gradient_accumulation_steps": 2}
    | {"beta": 0.1, "lora": True, "credit": "segment"},
}


def rows() -> Dataset:
    """Eight rows, one without a picture and one with two."""
    examples = list(load(n=8, ratio=5))
    examples[1] = replace(examples[1], images=())
    examples[2] = replace(examples[2], images=examples[2].images + next(load(n=1, seed=9)).images)
    return to_prompts_dataset(examples)


@pytest.mark.faults
@pytest.mark.parametrize("shape", SHAPES)
def test_every_step_of_two_cycles_resumes_bitwise(shape: str, tmp_path: Path) -> None:
    options = dict(SHAPES[shape])
    peft = {}
    if options.pop("lora", False):
        peft = {"peft_config": LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], lora_dropout=0.1)}
    cycle = options["steps_per_generation"] * options["num_iterations"]
    steps = 2 * cycle // options["gradient_accumulation_steps"] + 1
    tally, data = Tally(f"grpo steps, {shape}"), rows()

    def make(folder: Path) -> Any:
        return trainer("qwen2_5_vl", data, config(folder, **{**_BASE, **options, "max_steps": steps}), **peft)

    undisturbed = make(tmp_path / "all")
    undisturbed.train()
    expected = read_last(tmp_path / "all", steps)
    for step in range(1, steps):
        resumed = make(tmp_path / f"from-{step}")
        resumed.train(resume_from_checkpoint=str(tmp_path / f"all/checkpoint-{step}"))
        found = read_last(tmp_path / f"from-{step}", steps)
        different = sorted(name for name in expected if found.get(name) != expected[name])
        different += ["metrics"] if metrics_of(resumed) != metrics_of(undisturbed) else []
        tally.add(str(step), passed=not different, different=different)
    assert not tally.failures()


def read_last(folder: Path, step: int) -> dict[str, str]:
    """What the last checkpoint holds, except the open logging period, in which there are times."""
    last = folder / f"checkpoint-{step}"
    found = {name: digest for name, digest in _digests(last, folder).items() if not name.startswith("logging_period")}
    return found | {"state": _state_text(last / "trainer_state.json")}


@pytest.mark.faults
def test_two_ranks_resume_within_a_cycle_bitwise(tmp_path: Path) -> None:
    ranks = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*ranks, "-m", "tests.faults.two_ranks_grpo", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr[-3000:]
