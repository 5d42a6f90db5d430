"""A whole training step on vision data of ragged lengths, against TRL's SFTTrainer on the same rows.

    python benchmarks/sft_step.py [--size tiny|small] [--rounds 3] [--json FILE]
    python benchmarks/sft_step.py --size 3b --device cuda --json benchmarks/results/sft_step-cuda.json   # an 80 GB GPU

Commands of record: `--size tiny --steps 3` and `--size small --steps 1 --rounds 2 --only packed` (2 CPU cores, 5
minutes each). The rows are of the embedded world with reasoning of lengths drawn from a log-normal distribution around
ratio 40, as ragged as published rationales are; with `--lengths puzzlevqa` as even as PuzzleVQA's. `tiny` is a
Qwen2.5-VL of 2 million parameters, `small` one of 100 million with Qwen's vocabulary of 151,936, `3b` has the
dimensions of Qwen2.5-VL-3B and random weights. At each optimizer step all contestants see the same examples: they draw
one random order, and ours deals a step's examples to its micro-batches (`--accumulation`) and ranks (`--ranks`).

| contestant | what it is |
| --- | --- |
| `packed` | ours: SCALe, samples packed into rows |
| `padded` | ours: SCALe, a row for each sample |
| `uniform` | ours: plain SFT, a row for each sample |
| `trainer` | transformers' Trainer with TRL's collator: plain SFT, padded, logits of every position |
| `trl` | TRL's SFTTrainer: plain SFT, padded; it refuses to pack vision data |
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from dataclasses import replace
from typing import Any

import torch
from datasets import Dataset, Image, List
from transformers import Qwen2_5_VLForConditionalGeneration, TrainerCallback

from balanced_thinking import ScaleSFTConfig, ScaleSFTTrainer
from balanced_thinking.data.rows import to_dataset
from balanced_thinking.data.world import load
from balanced_thinking.models.find import TinySize
from balanced_thinking.models.tiny import build_tiny
from harness import Figures, contest, measured, options_of, peak_mib, reset_peak, table

CONTESTANTS: dict[str, dict[str, Any]] = {
    "packed": {"packing": True, "weighting": "scale"},
    "padded": {"weighting": "scale"},
    "uniform": {"weighting": "uniform"},
    "trainer": {},
    "trl": {},
}
SIZES = {
    "tiny": TinySize(hidden=128, layers=4),
    "small": TinySize(hidden=512, layers=8, heads=8, vision_hidden=256, vision_layers=4),
}
BATCHES = {"tiny": 16, "small": 8, "3b": 8}
QWEN_VOCABULARY = 151_936
# Of Qwen2.5-VL-3B, as its configuration has it.
TEXT_3B = {
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "vocab_size": QWEN_VOCABULARY,
    "layer_types": ["full_attention"] * 36,
}
VISION_3B = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "out_hidden_size": 2048,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "window_size": 112,
}
# Median of the reasoning's length in answers, and the standard deviation of its logarithm. PuzzleVQA's 1,000 items have
# 107 words of it in the median, from 81 to 135.
LENGTHS = {"ragged": (40, 0.6), "puzzlevqa": (26, 0.14)}
WARM_UP = 1


def build(size: str, device: str) -> tuple[Any, Any]:
    if size == "3b":
        _, processor = build_tiny("qwen2_5_vl", size=TinySize(max_image_tokens=1024))
        config = build_tiny("qwen2_5_vl")[0].config
        for part, dimensions in ((config.text_config, TEXT_3B), (config.vision_config, VISION_3B)):
            for name, value in dimensions.items():
                setattr(part, name, value)
        config.text_config.rope_parameters["mrope_section"] = [16, 24, 24]
        config.text_config._attn_implementation = config._attn_implementation = "sdpa"
        with torch.device(device):
            torch.set_default_dtype(torch.bfloat16)
            model = Qwen2_5_VLForConditionalGeneration(config)
            torch.set_default_dtype(torch.float32)
        return model, processor
    model, processor = build_tiny("qwen2_5_vl", size=SIZES[size])
    if size == "small":
        model.resize_token_embeddings(QWEN_VOCABULARY)
    return model, processor


def rows(count: int, side: int | None, lengths: str = "ragged") -> Dataset:
    """Examples of the world whose reasoning has such lengths, with pictures of `side` pixels if it is given."""
    rng, (ratio, spread) = random.Random(0), LENGTHS[lengths]
    ratios = [max(5.0, ratio * rng.lognormvariate(0, spread)) for _ in range(count)]
    examples = [next(load(n=1, seed=i, ratio=ratio)) for i, ratio in enumerate(ratios)]
    if side is not None:
        examples = [
            replace(example, images=tuple(i.resize((side, side)) for i in example.images)) for example in examples
        ]
    return to_dataset(examples).cast_column("images", List(Image()))


class Clock(TrainerCallback):
    """Wall and CPU seconds of the steps after the warm-up."""

    def __init__(self) -> None:
        self.began, self.ended = (0.0, 0.0), (0.0, 0.0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ended = (time.perf_counter(), time.process_time())
        if state.global_step == WARM_UP:
            self.began = self.ended

    def spent(self) -> tuple[float, float]:
        return self.ended[0] - self.began[0], self.ended[1] - self.began[1]


class Counts:
    """What a trainer's micro-batches hold, after the warm-up: places of the rows, tokens in them, supervised ones."""

    def __init__(self, trainer: Any, warm_up: int) -> None:
        self.counts, self.to_come = torch.zeros(3), warm_up
        self.step, trainer.training_step = trainer.training_step, self.counted

    def counted(self, model: Any, inputs: Any, *rest: Any) -> Any:
        self.to_come -= 1
        if self.to_come < 0:
            # Read at the end only: a GPU is not waited for.
            rows = inputs["batch_info"].lengths_by_row if "batch_info" in inputs else None
            attended = inputs["attention_mask"].sum() if rows is None else sum(map(sum, rows))
            supervised = (inputs["labels"][:, 1:] != -100).sum()
            found = [torch.as_tensor(n, device=supervised.device) for n in (inputs["input_ids"].numel(), attended)]
            self.counts = self.counts.to(supervised.device) + torch.stack([*found, supervised])
        return self.step(model, inputs, *rest)

    def read(self) -> tuple[float, float]:
        """(supervised tokens, share of padding), over all ranks."""
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(self.counts)
        places, tokens, supervised = self.counts.tolist()
        return supervised, 1 - tokens / places


def measure(name: str, options: argparse.Namespace) -> Figures:
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    model, processor = build(options.size, options.device)
    data = rows(options.batch * (WARM_UP + options.steps), 448 if options.size == "3b" else None, options.lengths)
    before, clock = reset_peak(), Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(
            name,
            options,
            model,
            processor,
            data,
            folder,
            per_device_train_batch_size=options.batch // (options.accumulation * options.ranks),
            gradient_accumulation_steps=options.accumulation,
            dataloader_num_workers=options.workers,
        )
        counts = Counts(trainer, WARM_UP * options.accumulation)
        trainer.add_callback(clock)
        trainer.train()
    wall, cpu = clock.spent()
    memory = torch.cuda.max_memory_allocated() / 2**20 if options.device == "cuda" else peak_mib(before)
    supervised, padding = counts.read()
    return {
        "tokens_per_second": supervised / wall,
        "cpu_seconds_per_step": cpu / options.steps,
        "peak_mib": memory,
        "padding_share": padding,
        "loss": trainer.state.log_history[0]["loss"],
    }


def make_trainer(
    name: str, options: argparse.Namespace, model: Any, processor: Any, data: Dataset, out: str, **training: Any
) -> Any:
    """A contestant's trainer, with a step of one micro-batch unless `training` says otherwise."""
    from transformers import Trainer, TrainingArguments
    from trl import SFTConfig, SFTTrainer
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    shared: dict[str, Any] = {
        "output_dir": out,
        "max_steps": WARM_UP + options.steps,
        "per_device_train_batch_size": BATCHES[options.size],
        "gradient_checkpointing": options.size == "3b",
        "logging_steps": 1,
        "save_strategy": "no",
        "dataloader_num_workers": 0,  # ours would take four with a GPU
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": options.device == "cpu",
        "bf16": options.device == "cuda",
        "optim": "adamw_torch_fused",
        "learning_rate": 1e-4,
    } | training
    if name == "trainer":
        collator = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)
        args = TrainingArguments(**shared, remove_unused_columns=False)
        return Trainer(model, args, data_collator=collator, train_dataset=data)
    shared["max_length"] = None
    config, trainer = (SFTConfig, SFTTrainer) if name == "trl" else (ScaleSFTConfig, ScaleSFTTrainer)
    return trainer(model, config(**shared, **CONTESTANTS[name]), train_dataset=data, processing_class=processor)


def main() -> int:
    parser = options_of(__doc__, tuple(CONTESTANTS), rounds=3)
    parser.add_argument("--size", choices=tuple(BATCHES), default="tiny", help="of the model (default tiny)")
    parser.add_argument("--batch", type=int, help="examples a step (default: as many as the size takes at once)")
    parser.add_argument("--accumulation", type=int, default=1, help="micro-batches of a step on each rank (default 1)")
    parser.add_argument("--ranks", type=int, default=1, help="processes that share a step (default 1)")
    parser.add_argument("--only", help="contestants beside trl, as in packed,padded (default: all)")
    parser.add_argument("--steps", type=int, default=4, help="steps timed, after one of warm-up (default 4)")
    parser.add_argument("--lengths", choices=tuple(LENGTHS), default="ragged", help="of the reasoning (default ragged)")
    parser.add_argument("--workers", type=int, default=0, help="of everyone's data loader (default 0)")
    options = parser.parse_args()
    if options.measure:
        measured(options.measure, options, measure)
        return 0
    options.batch = options.batch or BATCHES[options.size]
    if options.batch % (options.accumulation * options.ranks):
        parser.error(f"--batch {options.batch} does not divide into --accumulation times --ranks micro-batches")
    passed_on = ("size", "steps", "lengths", "workers", "batch", "accumulation", "ranks")
    arguments = [f"--{name}={getattr(options, name)}" for name in (*passed_on, "threads", "device")]
    chosen = [name for name in CONTESTANTS if options.only is None or name in (*options.only.split(","), "trl")]
    about = {name: getattr(options, name) for name in passed_on}
    result = contest(__file__, options, chosen, arguments, "trl", **about)
    memory = "GPU's peak MiB" if options.device == "cuda" else "added peak MiB"
    columns = {
        "tokens_per_second": "supervised tokens/s:,.0f",
        "cpu_seconds_per_step": "CPU s a step:.2f",
        "peak_mib": f"{memory}:,.0f",
        "padding_share": "padding:.0%",
    }
    print(table(result, columns, "trl"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
