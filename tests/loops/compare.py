"""Trains the same rows in other people's frameworks and here, and compares the loss of every step.

    python -m tests.loops.compare --swift .venv-swift/bin/python --llamafactory .venv-llamafactory/bin/python

Exit code 1 where a loss differs by more than 1e-6. Three steps of a tiny text model, divided in two ways; all arguments
of the optimizer are stated, because defaults differ.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from balanced_thinking import ScaleSFTConfig, ScaleSFTTrainer, load_model

HERE = Path(__file__).resolve().parent
SENTENCES = (5, 1, 8, 3, 2, 7, 4, 6)  # of each row's reasoning
SYSTEM = "You count tiles."  # stated, because templates differ in their own
DIVISIONS = ((8, 1), (2, 4))  # rows a micro-batch, micro-batches a step
TOLERANCE = 1e-6
SHARED: dict[str, Any] = {
    "max_steps": 3,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "adam_beta2": 0.999,
    "max_grad_norm": 1.0,
    "logging_steps": 1,
}


def write_files(folder: Path) -> None:
    """The model with its tokenizer, and the rows as each framework reads them."""
    loaded = load_model("tiny:qwen2")
    loaded.model.save_pretrained(folder / "tiny")
    loaded.processor.save_pretrained(folder / "tiny")
    (folder / "swift.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in conversations()))
    (folder / "llamafactory.json").write_text(json.dumps([{"messages": row} for row in conversations()]))
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    tags["system_tag"] = "system"
    about = {"file_name": "llamafactory.json", "formatting": "sharegpt", "columns": {"messages": "messages"}}
    (folder / "dataset_info.json").write_text(json.dumps({"rows": about | {"tags": tags}}))


def conversations() -> Iterator[list[dict[str, str]]]:
    for n in SENTENCES:
        said = f"<think>{'red tile . ' * n}</think><answer>{n}</answer>"
        turns = {"system": SYSTEM, "user": f"How many of {n}?", "assistant": said}
        yield [{"role": role, "content": text} for role, text in turns.items()]


def train_here(folder: Path, size: int, accumulation: int) -> list[float]:
    loaded = load_model(str(folder / "tiny"))
    rows = [{"prompt": turns[:-1], "completion": turns[-1:]} for turns in conversations()]
    args = ScaleSFTConfig(
        str(folder / f"ours-{size}"),
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulation,
        train_sampling_strategy="sequential",
        think_weight_start=0.9,
        think_weight_end=0.5,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        **SHARED,
    )
    trainer = ScaleSFTTrainer(
        loaded.model, args, train_dataset=Dataset.from_list(rows), processing_class=loaded.processor
    )
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def train_in_swift(python: str, folder: Path, size: int, accumulation: int) -> list[float]:
    options = {
        "model": folder / "tiny",
        "model_type": "qwen2",
        "template": "chatml",
        "dataset": folder / "swift.jsonl",
        "tuner_type": "full",
        "torch_dtype": "float32",
        "use_logits_to_keep": "false",
        "dataset_shuffle": "false",
        "train_dataloader_shuffle": "false",
        "split_dataset_ratio": 0,
        "save_strategy": "no",
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": accumulation,
        "output_dir": folder / f"swift-{size}",
    }
    words = [str(word) for name, value in (options | SHARED).items() for word in (f"--{name}", value)]
    return run_recorded(python, "swift", folder, words)


def train_in_llamafactory(python: str, folder: Path, size: int, accumulation: int) -> list[float]:
    options = {
        "model_name_or_path": str(folder / "tiny"),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "dataset": "rows",
        "dataset_dir": str(folder),
        "template": "chatml",
        "disable_shuffling": True,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": accumulation,
        "output_dir": str(folder / f"llamafactory-{size}"),
    }
    recipe = folder / f"llamafactory-{size}.yaml"  # JSON is YAML, and its own reader of JSON fails
    recipe.write_text(json.dumps(options | SHARED))
    return run_recorded(python, "llamafactory", folder, [str(recipe)])


def run_recorded(python: str, framework: str, folder: Path, words: list[str]) -> list[float]:
    """The losses of a training in another environment. Raises RuntimeError with its last lines where it fails."""
    out = folder / "losses.json"
    out.unlink(missing_ok=True)
    paths = os.pathsep.join([str(HERE.parents[1] / "src"), str(HERE / "stand_in")])
    environment = os.environ | {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [python, str(HERE / "record.py"), framework, str(out), *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    if done.returncode or not out.is_file():
        raise RuntimeError(f"{framework} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    losses: list[float] = json.loads(out.read_text())
    return losses


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swift", help="the Python of an environment with ms-swift")
    parser.add_argument("--llamafactory", help="the Python of an environment with LLaMA-Factory")
    arguments = parser.parse_args()
    others = {
        "ms-swift": (arguments.swift, train_in_swift),
        "LLaMA-Factory": (arguments.llamafactory, train_in_llamafactory),
    }
    if not any(python for python, _ in others.values()):
        parser.error("name an environment with --swift or --llamafactory")
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder)
        for size, accumulation in DIVISIONS:
            ours = train_here(folder, size, accumulation)
            print(f"{size} x {accumulation}  here          {'  '.join(f'{loss:.7f}' for loss in ours)}", flush=True)
            for framework, (python, train) in others.items():
                if python is None:
                    continue
                theirs = train(str(Path(python).absolute()), folder, size, accumulation)
                differences = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
                worst = max(worst, *differences)
                shown = "  ".join(f"{loss:.7f}" for loss in theirs)
                print(
                    f"{size} x {accumulation}  {framework:<13} {shown}  largest difference {max(differences):.1e}",
                    flush=True,
                )
    print(f"largest difference {worst:.1e} nats, allowed {TOLERANCE:.0e}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
