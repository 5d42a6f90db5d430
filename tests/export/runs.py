"""Small runs to export, written at once: a training would take seconds."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import yaml
from peft import LoraConfig, get_peft_model

from balanced_thinking.models.load import LoadedModel, ensure_saved, load_model
from balanced_thinking.models.quantization import write_base_quantization
from balanced_thinking.runs.manifest import seal_folder

DATA = {"data": "world", "split": "train", "data_options": {"n": 3, "ratio": 5}}
FEW = ["--samples", "2", "--max-new-tokens", "6", "--quiet"]


def write_run(folder: Path, architecture: str, *, lora: bool, base: str | None = None) -> Path:
    """As `balanced sft` leaves one, with an adapter that changes the answers, or complete weights.

    `base` is what the adapter names; None: its own absolute path, as runs do.
    """
    loaded = load_model(f"tiny:{architecture}", seed=3)
    recipe: dict[str, Any] = {"stage": "sft", "model": f"tiny:{architecture}", "lora": {"r": 4} if lora else None}
    text = {"data": "world-text"} if architecture == "qwen2" else {}
    recipe |= DATA | text | {"training": {"max_steps": 2, "learning_rate": 1e-3, "reasoning_format": "think-answer"}}
    (folder / "model").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(recipe))
    about = {"arm": "scale-sft", "stage": "sft", "seed": 7, "examples": 3, "dropped": 1, "steps": 2}
    about |= {"train_seconds": 1.5, "finished": "2026-11-29T00:00:00", "versions": {"torch": "2.13.0"}}
    (folder / "provenance.json").write_text(json.dumps(about))
    rows = [{"step": 1, "w_think": 0.9, "w_answer": 0.1}, {"step": 2, "w_think": 0.5, "w_answer": 0.5}]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model = write_adapter(ensure_saved(loaded, folder / "base"), base) if lora else loaded.model
    model.save_pretrained(folder / "model")
    loaded.processor.save_pretrained(folder / "model")
    seal_folder(folder / "model")
    return folder


def write_quantized_run(folder: Path, architecture: str) -> Path:
    """As `balanced sft --quantization nf4` leaves one, with an adapter that changes the answers."""
    write_run(folder, architecture, lora=True)
    shutil.rmtree(folder / "model")
    loaded = load_model(str(folder / "base"), quantization="nf4")
    write_adapter(loaded, None).save_pretrained(folder / "model")
    loaded.processor.save_pretrained(folder / "model")
    write_base_quantization(loaded.model, folder / "model")
    seal_folder(folder / "model")
    return folder


def write_adapter(loaded: LoadedModel, base: str | None) -> Any:
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj", "down_proj"])
    torch.manual_seed(1)
    adapted = get_peft_model(loaded.model, config)
    if base is not None:
        adapted.peft_config["default"].base_model_name_or_path = base
    with torch.no_grad():
        for value in adapted.parameters():
            if value.requires_grad:
                value += 0.1 * torch.randn_like(value)
    return adapted


def write_results(run: Path) -> None:
    """One evaluation: 30 of 40 right, 3 malformed, 2 truncated."""
    folder = run / "eval" / "world-test"
    folder.mkdir(parents=True)
    counts = {"n": 40, "correct": 30, "accuracy": 0.75, "malformed": 3, "truncated": 2}
    about = {"schema": 2, "data": "world", "split": "test", "scorer": "exact", "engine": "transformers"}
    (folder / "summary.json").write_text(json.dumps(about | counts))


def run_in_this_process(command: list[str], **_: Any) -> Any:
    """In the place of `subprocess.run`, for `python -P FILE REQUEST ANSWERS`: saves the imports."""
    words, sys.argv = sys.argv, command[2:]
    try:
        runpy.run_path(command[2], run_name="__main__")
    except Exception as error:
        return SimpleNamespace(returncode=1, stderr=repr(error))
    finally:
        sys.argv = words
    return SimpleNamespace(returncode=0, stderr="")


REAL_RUN = subprocess.run
