"""`balanced estimate --gpu cpu` against trainings on this machine: memory at the peak and seconds of a step.

    python benchmarks/estimate.py --gemma FOLDER --json benchmarks/results/estimate-cpu.json

Each pair is a recipe that is estimated in one fresh process and trained in others, by `train` as `balanced sft` calls
it. The memory of a training is the process's peak from its first step on (VmHWM), less what it held before the model
was loaded. It is measured twice: as it is, and in a process whose malloc returns what is freed
(MALLOC_MMAP_THRESHOLD_=1048576), with which the estimate is compared. By default glibc keeps freed blocks below 32 MiB,
and how much of that is left between others changes from run to run.

Speed is compared in tokens a second, over the steps after the first, because a measured step need not be as long as
the mean one. With `--threads 1` both are of CPU seconds.

| model | what it is |
| --- | --- |
| `tiny` | a Qwen2.5-VL of 2 million parameters on the embedded world, 16 samples a step |
| `small` | one of 100 million with Qwen's vocabulary, 8 samples a step |
| `gemma` | Gemma 3 270M (`--gemma`: the folder of its weights; else left out) on texts, 8 samples a step |

Each is trained in full and with LoRA, with and without gradient checkpointing, packed and padded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import yaml
from transformers import TrainerCallback

from balanced_thinking.models.find import TinySize
from balanced_thinking.models.tiny import build_tiny
from harness import MeasurementError, in_fresh_process, measured, memory_mib, options_of, peak_mib, record, reset_peak

QWEN_VOCABULARY = 151_936
SMALL = TinySize(hidden=512, layers=8, heads=8, vision_hidden=256, vision_layers=4)
MODELS = ("tiny", "small", "gemma")
METHODS = ("full", "lora")
WARM_UP = 1
# Samples a step, and steps after the first.
BATCHES = {"tiny": 16, "small": 8, "gemma": 8}
STEPS = {"tiny": 6, "small": 2, "gemma": 2}
MOST_MEMORY_ERROR, MOST_TIME_ERROR = 0.15, 0.25
_TRAININGS = ("trained", "returning")
_CONTESTANTS = ("estimated", *_TRAININGS)
_RETURNING = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
_RATIOS = (15, 40, 90)


def list_pairs(models: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A name and what it says, of every combination."""
    for model, method, checkpointing, packing in product(models, METHODS, (False, True), (True, False)):
        words = model, method, "checkpointing" if checkpointing else "all kept", "packed" if packing else "padded"
        name = ", ".join(words)
        yield name, {"model": model, "method": method, "checkpointing": checkpointing, "packing": packing}


def make_ragged(rows: int) -> list[dict[str, Any]]:
    """Samples of three lengths, so that a row for each sample is padding in part.

    No more than a training takes, so that its micro-batches are as large as those that are estimated.
    """
    each = -(-rows // len(_RATIOS))
    return [
        {"data": "world", "name": f"ratio-{ratio}", "data_options": {"n": each, "seed": ratio, "ratio": ratio}}
        for ratio in _RATIOS
    ]


def make_recipe(pair: dict[str, Any], folders: dict[str, str]) -> dict[str, Any]:
    model = pair["model"]
    data = make_ragged(BATCHES[model] * (WARM_UP + STEPS[model]))
    recipe: dict[str, Any] = {"model": folders.get(model, "tiny:qwen2_5_vl"), "data": data}
    if model == "tiny":
        recipe["model_size"] = {"hidden": 128, "layers": 4}
    if model == "gemma":
        recipe["data"] = "world-text"
        recipe["data_options"] = {"n": 400}
    if pair["method"] == "lora":
        recipe["lora"] = {"r": 16}
    recipe["training"] = {
        "max_steps": WARM_UP + STEPS[model],
        "per_device_train_batch_size": BATCHES[model],
        "packing": pair["packing"],
        "gradient_checkpointing": pair["checkpointing"],
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
    }
    return recipe


def digest(recipe: dict[str, Any]) -> str:
    """Of a recipe, wherever its model is."""
    return hashlib.sha256(yaml.safe_dump(recipe | {"model": ""}).encode()).hexdigest()[:16]


class Clock(TrainerCallback):
    """Seconds of the steps after the first, and a peak that starts with the training."""

    began = ended = (0.0, 0.0)
    tokens: ClassVar[dict[int, float]] = {}

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        reset_peak()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        Clock.ended = (time.perf_counter(), time.process_time())
        if state.global_step == WARM_UP:
            Clock.began = Clock.ended

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "num_tokens" in logs:
            Clock.tokens[state.global_step] = logs["num_tokens"]


def measure(name: str, options: argparse.Namespace) -> dict[str, float]:
    return estimate_pair(options.recipe) if name == "estimated" else train_pair(options.recipe)


def estimate_pair(recipe: Path) -> dict[str, float]:
    from balanced_thinking.estimate.run import Question, estimate_training

    found = estimate_training([recipe], (), Question(gpu="cpu"))
    parts = {f"mib {part}": size / 2**20 for part, size in found.memory.parts().items() if size}
    return {"mib": found.memory.total / 2**20, "tokens_per_second": found.speed.tokens_per_second, **parts}


def train_pair(recipe: Path) -> dict[str, float]:
    from transformers import trainer

    from balanced_thinking.training.recipe import load_recipe
    from balanced_thinking.training.run import train

    trainer.DEFAULT_CALLBACKS.append(Clock)
    before = memory_mib("VmRSS:")
    with tempfile.TemporaryDirectory() as folder:
        read = load_recipe(recipe)
        train(read, Path(folder) / "run")
    tokens = Clock.tokens[int(read.training["max_steps"])] - Clock.tokens[WARM_UP]
    wall, cpu = (ended - began for ended, began in zip(Clock.ended, Clock.began, strict=True))
    return {"mib": peak_mib(before), "tokens_per_second": tokens / wall, "tokens_per_cpu_second": tokens / cpu}


def save_small(folder: Path) -> None:
    model, processor = build_tiny("qwen2_5_vl", size=SMALL)
    model.resize_token_embeddings(QWEN_VOCABULARY, mean_resizing=False)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def compare_pair(recipe: Path, threads: int, known: dict[str, Any]) -> dict[str, Any]:
    """The figures of both, and the estimate's errors as shares of what was measured.

    The trainings of `known`, an earlier row of the same pair, are not repeated.
    """
    arguments = [f"--recipe={recipe}", f"--threads={threads}"]
    found: dict[str, Any] = {name: known[name] for name in _TRAININGS if name in known}
    for name in _CONTESTANTS:
        if name in found:
            continue
        try:
            more = _RETURNING if name == "returning" else {}
            found[name] = in_fresh_process(name, __file__, arguments, environment=more)
        except MeasurementError as error:
            print(error.output, file=sys.stderr)
            return {"failed": f"{name}: {error}"}
    if threads == 1 and "trained" not in known:  # what other processes disturb less
        found["trained"]["tokens_per_second"] = found["trained"]["tokens_per_cpu_second"]
    found["memory_error"] = found["estimated"]["mib"] / found["returning"]["mib"] - 1
    found["time_error"] = found["trained"]["tokens_per_second"] / found["estimated"]["tokens_per_second"] - 1
    return found


def table(rows: dict[str, Any]) -> str:
    lines = [
        "| | MiB estimated | measured | error | with malloc as it is | tokens/s estimated | measured | error of time |",
        "| --- |" + " ---: |" * 7,
    ]
    for name, row in rows.items():
        if "failed" in row:
            lines.append(f"| {name} | failed: {row['failed']} |" + " |" * 6)
            continue
        cells = [f"{row['estimated']['mib']:,.0f}", f"{row['returning']['mib']:,.0f}", f"{row['memory_error']:+.0%}"]
        cells += [f"{row['trained']['mib']:,.0f}"]
        cells += [f"{row[name]['tokens_per_second']:,.0f}" for name in ("estimated", "trained")]
        cells += [f"{row['time_error']:+.0%}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = options_of(__doc__, _CONTESTANTS, rounds=1, devices=("cpu",))
    parser.add_argument("--gemma", type=Path, help="folder of Gemma 3 270M (default: left out)")
    parser.add_argument("--only", help="pairs whose name contains this, such as 'tiny, full' (default: all)")
    parser.add_argument(
        "--measured",
        type=Path,
        nargs="+",
        default=[],
        help="JSON of earlier runs on this machine; trainings by the same recipe are not repeated",
    )
    parser.add_argument("--recipe", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measured(options.measure, options, measure)
        return 0
    rows: dict[str, Any] = {}
    known: dict[str, Any] = {}
    for file in options.measured:
        known |= json.loads(file.read_text())["figures"]
    with tempfile.TemporaryDirectory() as work:
        folders = {"gemma": str(options.gemma)} if options.gemma else {}
        pairs = [(n, p) for n, p in list_pairs(MODELS if folders else MODELS[:2]) if (options.only or "") in n]
        if any(pair["model"] == "small" for _, pair in pairs):
            folders["small"] = str(Path(work) / "small")
            save_small(Path(folders["small"]))
        for name, pair in pairs:
            recipe = Path(work) / "recipe.yaml"
            recipe.write_text(yaml.safe_dump(made := make_recipe(pair, folders)))
            same = known.get(name, {}).get("recipe") == digest(made)
            rows[name] = compare_pair(recipe, options.threads, known[name] if same else {}) | {"recipe": digest(made)}
            print(f"{name}: {json.dumps(rows[name])}", file=sys.stderr)
            record(__file__, options, rows, pairs=len(pairs))
    print(table(rows))
    outside = [n for n, row in rows.items() if "failed" in row or not _is_close(row)]
    limits = f"{MOST_MEMORY_ERROR:.0%} (memory) and {MOST_TIME_ERROR:.0%} (time)"
    print(f"\n{len(rows) - len(outside)} of {len(rows)} within {limits}")
    return 0


def _is_close(row: dict[str, Any]) -> bool:
    return abs(row["memory_error"]) <= MOST_MEMORY_ERROR and abs(row["time_error"]) <= MOST_TIME_ERROR


if __name__ == "__main__":
    sys.exit(main())
