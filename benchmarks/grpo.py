"""GRPO with pictures against stock TRL: pictures decoded and processed, and time a step.

    python benchmarks/grpo.py [--rounds 5] [--side 448] [--tokens 32] [--json FILE]

Command of record: python benchmarks/grpo.py --json benchmarks/results/grpo-cpu.json (2 CPU cores, about 4 minutes).
Four prompts of one picture each, four completions a prompt, accumulation over four micro-batches, two optimizer steps:
eight different pictures, so eight decodings and eight passes through the image processor are what is needed.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Image, List
from PIL import Image as Pictures

from balanced_thinking import ScaleGRPOConfig, ScaleGRPOTrainer
from balanced_thinking.data.rows import to_prompts_dataset
from balanced_thinking.data.world import load
from harness import Figures, contest, measured, options_of, peak_mib, reset_peak, table
from sft_step import BATCHES, build

CONTESTANTS = ("ours", "trl")
STEPS, PROMPTS, COMPLETIONS, ACCUMULATION = 2, 4, 4, 4
NEEDED = STEPS * PROMPTS


def lengths(completions: list[Any], **_: Any) -> list[float]:
    """A reward that varies among the completions of a model that knows nothing."""
    return [float(len(completion[0]["content"]) % 7) for completion in completions]


def rows(folder: Path, side: int) -> Dataset:
    """Prompts with pictures as files, in the columns that both trainers read."""
    data = to_prompts_dataset(load(n=NEEDED, ratio=5)).to_list()
    for i, row in enumerate(data):
        path = folder / f"{i}.png"
        next(load(n=1, seed=i)).images[0].resize((side, side)).save(path)
        row["images"] = [str(path)]
    return Dataset.from_list(data).cast_column("images", List(Image()))


def train(name: str, data: Dataset, out: str, steps: int, seen: dict[str, int], options: argparse.Namespace) -> float:
    """Wall seconds of `steps` optimizer steps; `seen` counts the pictures."""
    from trl import GRPOConfig, GRPOTrainer

    model, processor = build(options.size, options.device)
    count_pictures(processor.image_processor, seen)
    kinds: dict[str, Any] = {"ours": (ScaleGRPOConfig, ScaleGRPOTrainer), "trl": (GRPOConfig, GRPOTrainer)}
    config, trainer = kinds[name]
    args = config(
        output_dir=out,
        max_steps=steps,
        per_device_train_batch_size=PROMPTS * COMPLETIONS // ACCUMULATION,
        gradient_accumulation_steps=ACCUMULATION,
        num_generations=COMPLETIONS,
        max_completion_length=options.tokens,
        gradient_checkpointing=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        bf16=options.device == "cuda",
        use_cpu=options.device == "cpu",
        seed=3,
    )
    run = trainer(model, lengths, args, data, processing_class=processor)
    start = time.perf_counter()
    run.train()
    if options.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def count_pictures(image_processor: Any, seen: dict[str, int]) -> None:
    kind = type(image_processor)
    preprocess = getattr(kind, "_uncounted", kind.preprocess)

    def counted(self: Any, images: Any, *args: Any, **kwargs: Any) -> Any:
        seen["processed"] += sum(len(image) if isinstance(image, list) else 1 for image in images)
        return preprocess(self, images, *args, **kwargs)

    kind._uncounted, kind.preprocess = preprocess, counted


def measure(name: str, options: argparse.Namespace) -> Figures:
    seen = {"decoded": 0, "processed": 0}
    before = reset_peak()
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    open_picture = Pictures.open

    def counted(*args: Any, **kwargs: Any) -> Any:
        seen["decoded"] += 1
        return open_picture(*args, **kwargs)

    with tempfile.TemporaryDirectory() as folder:
        data = rows(Path(folder), options.side)
        train(name, data, folder, 1, seen.copy(), options)  # imports, thread pools
        gc.collect()  # the model of the warm-up
        Pictures.open = counted
        try:
            seconds = train(name, data, folder, STEPS, seen, options)
        finally:
            Pictures.open = open_picture
    memory = torch.cuda.max_memory_allocated() / 2**20 if options.device == "cuda" else peak_mib(before)
    return {"seconds_per_step": seconds / STEPS, "peak_mib": memory} | seen


def main() -> int:
    parser = options_of(__doc__, CONTESTANTS)
    parser.add_argument("--size", choices=tuple(BATCHES), default="tiny", help="of the model (default tiny)")
    parser.add_argument("--side", type=int, default=448, help="pixels of a picture's side (default 448)")
    parser.add_argument("--tokens", type=int, default=32, help="tokens of a completion (default 32)")
    options = parser.parse_args()
    if options.measure:
        measured(options.measure, options, measure)
        return 0
    passed_on = ("size", "side", "tokens", "threads", "device")
    chosen = [f"--{name}={getattr(options, name)}" for name in passed_on]
    about = {"size": options.size, "picture_side": options.side, "completion_tokens": options.tokens}
    result = contest(__file__, options, CONTESTANTS, chosen, "trl", **about)
    columns = {"seconds_per_step": "s a step:.2f", "decoded": "decoded:.0f", "processed": "processed:.0f"}
    print(table(result, columns, "trl"))
    ours = result["ours"]
    passed = "failed" not in ours and ours["decoded"]["max"] == ours["processed"]["max"] == NEEDED
    print(f"{'PASS' if passed else 'FAIL'} pictures decoded and processed by ours: {NEEDED} of each are needed")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
