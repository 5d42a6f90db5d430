"""The trainings that are disturbed: a second each, with a save at every step and a row of metrics at every other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

STEPS = 6
_COMMON = [
    *("--model", "tiny:qwen2", "--max_steps", str(STEPS), "--logging_steps", "2", "--gradient_checkpointing", "false"),
    *("--save_strategy", "steps", "--save_steps", "1", "--save_total_limit", "3"),
]
_SFT = [*_COMMON, "--per_device_train_batch_size", "2", "--learning_rate", "1e-3", "--schedule", "cosine"]
# A generation cycle is four optimizer steps: two batches of completions, each used twice. So most saves are within one.
_GRPO = [
    *_COMMON,
    *("--per_device_train_batch_size", "4", "--num_generations", "4", "--max_completion_length", "4"),
    *("--steps_per_generation", "2", "--num_iterations", "2", "--learning_rate", "1e-3"),
    *("--reasoning_format", "{name: letters, answer_open: e, think_required: false}"),
]
KINDS: dict[str, list[str]] = {
    "sft": ["sft", *_SFT],
    "lora": ["sft", *_SFT, "--lora", "{r: 4, lora_dropout: 0.1}"],
    "grpo": ["grpo", *_GRPO],
}


class Training(NamedTuple):
    """A training of one of the KINDS in a folder of its own."""

    kind: str
    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def output(self) -> Path:
        return self.folder / "output.txt"

    def words(self, *more: str, run: Path | None = None) -> list[str]:
        data = self.folder.parent / "rows.jsonl"
        return [*KINDS[self.kind], "--data", str(data), "--out", str(run or self.run), *more]


def make_training(kind: str, folder: Path) -> Training:
    """In `folder`, which is made. The rows are in the folder above, the same for all."""
    folder.mkdir(parents=True)
    write_rows(folder.parent / "rows.jsonl")
    return Training(kind, folder)


def write_rows(path: Path) -> None:
    """Eight sums, of lengths that differ."""
    rows = [
        {
            "id": f"row-{i}",
            "question": f"what is {i} plus {i}?",
            "think": f"i add {i} and {i} " * (1 + i % 3),
            "answer": str(2 * i),
        }
        for i in range(8)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
