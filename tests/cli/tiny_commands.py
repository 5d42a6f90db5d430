"""Options of short trainings on a tiny model, and of short evaluations; a command's exit code however it ends."""

from __future__ import annotations

from balanced_thinking.cli import main

BASE = ["--model", "world-base"]
FEW = ["--data", "world", "--data_options.n", "2"]
TINY = ["--model", "tiny:qwen2_5_vl", "--data_options.n", "8", "--data_options.ratio", "5"]
STEPS = [
    *("--max_steps", "2", "--per_device_train_batch_size", "2"),
    *("--logging_steps", "1", "--gradient_checkpointing", "false"),
]
# GRPO options with which an untrained model earns rewards that differ: about half of what it writes has an `e`.
LEARNING = [
    *("--per_device_train_batch_size", "4", "--num_generations", "4", "--max_completion_length", "4"),
    *("--reasoning_format", "{name: letters, answer_open: e, think_required: false}"),
]


def exit_code(words: list[str]) -> int:
    """What the command ends with: `main` raises SystemExit where argparse ends it, with 2 for wrong usage."""
    try:
        return main(words)
    except SystemExit as end:
        return int(end.code or 0)
