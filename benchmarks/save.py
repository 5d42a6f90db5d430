"""What a sealed checkpoint costs: ours and transformers' own save of one model, in turn, and the rate of verification.

    python benchmarks/save.py [--mib 1024] [--pairs 5] [--folder DIR] [--json FILE]

Command of record: python benchmarks/save.py --json benchmarks/results/save-cpu.json (2 CPU cores, 3 minutes). A third
of a checkpoint is weights, two thirds are the optimizer's state. Both savers write the same files to the same disk.
Ours reads every weight first (no NaN is saved) and syncs; what transformers leaves to the system to write later is
not counted for it.
Expected: at most 1.15 times transformers' seconds, and a verification at no less than half of the rate at which the
files can be read from the disk (page cache emptied). The rates from memory are shown beside it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import Qwen2Config, Qwen2ForCausalLM, Trainer

from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.runs.manifest import find_damage
from balanced_thinking.training.sft import ScaleSFTTrainer
from balanced_thinking.training.sft_config import ScaleSFTConfig
from harness import options_of, record, spread

SLOWEST, RATE = 1.15, 0.5
_BUFFER = 8 << 20
_VOCABULARY = 512


class Plain(ScaleSFTTrainer):
    """The same trainer with transformers' own save."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        Trainer._save_checkpoint(self, model, trial)


def make_trainer(kind: type[ScaleSFTTrainer], mib: int, folder: str) -> ScaleSFTTrainer:
    """A text model whose weights are a third of `mib`, with AdamW's state after one step of zero gradients."""
    hidden = 1024
    layer = 4 * hidden * hidden + 3 * hidden * 4 * hidden
    layers = max(1, round(mib * 2**20 / 3 / 4 / layer))
    processor = build_tiny("qwen2")[1]
    config = Qwen2Config(
        vocab_size=_VOCABULARY,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        tie_word_embeddings=True,
    )
    args = ScaleSFTConfig(output_dir=folder, report_to="none", save_strategy="steps", use_cpu=True, max_steps=10)
    row = {"prompt": [{"role": "user", "content": "which color ?"}]}
    row["completion"] = [{"role": "assistant", "content": "<think>red</think><answer>red</answer>"}]
    rows = Dataset.from_list([row])
    trainer = kind(Qwen2ForCausalLM(config), args, train_dataset=rows, processing_class=processor)
    trainer.create_optimizer_and_scheduler(10)
    for parameter in trainer.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    trainer.optimizer.step()
    trainer.model.zero_grad()
    trainer._tr_loss, trainer._globalstep_last_logged = torch.tensor(0.0), 0  # as `train` sets them
    return trainer


def timed_save(trainer: Any, step: int) -> float:
    """Wall seconds of a save; what the system has still to write from before is written first."""
    os.sync()
    trainer.state.global_step = step
    began = time.perf_counter()
    trainer._save_checkpoint(trainer.model, None)
    return time.perf_counter() - began


def empty_page_cache(folder: Path) -> None:
    for file in folder.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_plainly(folder: Path) -> None:
    buffer = memoryview(bytearray(_BUFFER))
    for file in folder.iterdir():
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass


def verify(folder: Path) -> None:
    assert not find_damage(folder)


def measure_reading(folder: Path, pairs: int, cold: bool) -> dict[str, Any]:
    """MiB per second of plain reading and of verification, in turn, and the ratio of each pair."""
    size = sum(file.stat().st_size for file in folder.iterdir()) / 2**20
    rates: dict[str, list[float]] = {"read": [], "verify": []}
    for pair in range(-1, pairs):
        work: list[tuple[str, Callable[[Path], None]]] = [("read", read_plainly), ("verify", verify)]
        for name, function in work[:: 1 if pair % 2 else -1]:
            if cold:
                empty_page_cache(folder)
            began = time.perf_counter()
            function(folder)
            if pair >= 0:  # one of warm-up
                rates[name].append(size / (time.perf_counter() - began))
    ratios = [b / a for a, b in zip(rates["read"], rates["verify"], strict=True)]
    return {name: spread(values) for name, values in rates.items()} | {"ratio": spread(ratios)}


def measure_saves(options: argparse.Namespace, folder: str) -> tuple[dict[str, Any], Path]:
    """Seconds of both savers, their ratio by pair, and the last checkpoint of ours."""
    trainers = {
        "ours": make_trainer(ScaleSFTTrainer, options.mib, f"{folder}/ours"),
        "transformers": make_trainer(Plain, options.mib, f"{folder}/transformers"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for pair in range(-1, options.pairs):
        for name in list(trainers)[:: 1 if pair % 2 else -1]:
            taken = timed_save(trainers[name], pair + 2)
            if pair >= 0:
                seconds[name].append(taken)
            for old in Path(folder, name).glob("checkpoint-*"):
                if old.name != f"checkpoint-{pair + 2}":
                    shutil.rmtree(old)
    ratios = [a / b for a, b in zip(seconds["ours"], seconds["transformers"], strict=True)]
    last = Path(folder, "ours", f"checkpoint-{options.pairs + 1}")
    return {name: spread(values) for name, values in seconds.items()} | {"ratio": spread(ratios)}, last


def verdict(passed: bool) -> str:
    return "PASS" if passed else "FAIL"


def main() -> int:
    parser = options_of(__doc__, (), devices=("cpu",))
    parser.add_argument("--mib", type=int, default=1024, help="of a checkpoint, in all (default 1024)")
    parser.add_argument("--pairs", type=int, default=5, help="saves of each kind (default 5)")
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: the system's temporary folder)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        saves, checkpoint = measure_saves(options, folder)
        size = sum(file.stat().st_size for file in checkpoint.iterdir()) / 2**20
        reading = {
            name: measure_reading(checkpoint, options.pairs, cold) for name, cold in (("disk", True), ("memory", False))
        }
    figures = {"save_seconds": saves, **{f"verify_from_{name}_mib_per_second": one for name, one in reading.items()}}
    slow, rate = saves["ratio"]["median"], reading["disk"]["ratio"]["median"]
    print(f"{verdict(slow <= SLOWEST)} a sealed save of {size:,.0f} MiB takes {slow:.3f} of transformers' own")
    for name, one in reading.items():
        print(
            f"{verdict(rate >= RATE) if name == 'disk' else '    '} verified from the {name} at "
            f"{one['verify']['median']:,.0f} MiB/s, {one['ratio']['median']:.2f} of plain reading "
            f"({one['read']['median']:,.0f} MiB/s)"
        )
    record(__file__, options, figures, mib=round(size), pairs=options.pairs)
    return 0 if slow <= SLOWEST and rate >= RATE else 1


if __name__ == "__main__":
    sys.exit(main())
