"""A small study, what its finished runs leave, and its processes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from balanced_thinking.study.load import make_study
from balanced_thinking.study.plan import merge_mappings
from balanced_thinking.study.run import prepare_folder

TRAINING = {"per_device_train_batch_size": 2, "max_steps": 2, "gradient_checkpointing": False, "logging_steps": 1}
# About half of what an untrained model writes has an `e`, so that rewards differ and a run can learn.
LETTERS = {"name": "letters", "answer_open": "e", "think_required": False}
SMALL: dict[str, Any] = {
    "seeds": [0],
    "stages": {
        "sft": {
            "model": "tiny:qwen2_5_vl",
            "data_options": {"n": 8, "ratio": 5},
            "training": {**TRAINING, "save_strategy": "steps", "save_steps": 1},
        },
        "grpo": {
            "data_options": {"n": 4},
            "training": {
                **TRAINING,
                "per_device_train_batch_size": 4,
                "num_generations": 4,
                "max_completion_length": 4,
                "reasoning_format": dict(LETTERS),
                "save_strategy": "steps",
                "save_steps": 1,
            },
        },
    },
    "arms": {"sft": {"training": {"weighting": "uniform"}}, "sft+grpo": {"after": "sft", "stage": "grpo"}},
    "evaluate": {"world": {"splits": ["test"], "options": {"n": 2}, "max_new_tokens": 4}},
    "contrasts": [["sft+grpo", "sft"]],
}


def changed(**over: Any) -> dict[str, Any]:
    return merge_mappings(SMALL, over)


def finish(root: Path, study: Any, name: str, *evaluated: str) -> None:
    """Leave what a finished run and its evaluations leave, an empty folder in the place of the model."""
    prepare_folder(make_study(study), root)
    (node,) = [node for node in make_study(study).planned_runs() if node.name == name]
    for label in evaluated:
        (root / name / "eval" / label).mkdir(parents=True)
        (root / name / "eval" / label / "summary.json").write_text("{}")
    (root / name / "model").mkdir(parents=True, exist_ok=True)
    (root / name / "config.yaml").write_text(node.recipe.to_yaml())
    (root / name / "provenance.json").write_text('{"finished": "now"}')


MISSPELT = changed(arms={"sft+grpo": {"training": {"learing_rate": 1e-3}}})


PAUSING = Path(__file__).parent / "pausing"
TIMEOUT_SECONDS = 120


def fingerprints(root: Path) -> dict[str, str]:
    """What a final table is made of: every prediction, and every logged loss."""
    found = {}
    for path in sorted(root.glob("*/seed-*/eval/*/predictions.jsonl")):
        found[str(path.relative_to(root))] = hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(root.glob("*/seed-*/metrics.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
        found[str(path.relative_to(root))] = str(losses)
    return found


def workers(root: Path) -> list[psutil.Process]:
    found = [(process, process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    return [p for p, words in found if "balanced_thinking.study.worker" in words and str(root) in words]


def kill_workers(root: Path) -> None:
    for process in workers(root):
        process.kill()


def study_command(root: Path) -> list[str]:
    (root / "plan.yaml").write_text(yaml.safe_dump(SMALL))
    program = [sys.executable, "-m", "balanced_thinking.cli"]
    return [*program, "study", str(root / "plan.yaml"), "--out", str(root / "s")]


def start_paused(command: list[str], point: str, marker: Path) -> subprocess.Popen[bytes]:
    """Start a command and return once it, or a worker that it started, has paused at a point (see `pausing`).

    Raises AssertionError where it ends before that.
    """
    marker.unlink(missing_ok=True)
    path = os.pathsep.join(filter(None, (str(PAUSING), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PAUSE_AT": point, "PAUSE_MARKER": str(marker), "PYTHONPATH": path}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not marker.exists():
        assert process.poll() is None, f"{command} ended with {process.returncode} before it came to {point}"
        assert time.monotonic() < deadline, f"{command} did not come to {point} in {TIMEOUT_SECONDS} s"
        time.sleep(0.05)
    return process
