"""From files to a batch: samples a second, and how often each picture is decoded, against TRL's collator.

    python benchmarks/pipeline.py [--side 512] [--samples 96] [--workers 0] [--rounds 5] [--json FILE]

Commands of record: `--rounds 3 --json benchmarks/results/pipeline-cpu.json`, also with `--workers 2` (a minute each).
Rows of one picture of 512 x 512 pixels as a PNG file, a question, and reasoning at ratio 40; batches of 8, both through
torch's DataLoader with the collator that the trainer would use and the columns that it needs.

| contestant | what it is |
| --- | --- |
| `ours` | paths in the rows, `ScaleCollator` |
| `cached` | the same with an `image_cache` that holds every picture |
| `trl` | a column of pictures, as TRL's documentation has it, and TRL's collator |
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from datasets import Dataset, Image, List
from PIL import Image as Pictures
from torch.utils.data import DataLoader

from balanced_thinking.batch.collator import ImageCache, ScaleCollator
from balanced_thinking.data.rows import to_dataset
from balanced_thinking.data.world import load
from balanced_thinking.models.find import TinySize
from balanced_thinking.models.tiny import build_tiny
from harness import Figures, contest, measured, options_of, table

CONTESTANTS = ("ours", "cached", "trl")
BATCH, IMAGE_TOKENS = 8, 324  # what 512 x 512 pixels are to Qwen2.5-VL


def rows(folder: Path, samples: int, side: int) -> Dataset:
    data = to_dataset(list(load(n=samples, ratio=40))).to_list()
    for i, row in enumerate(data):
        path = folder / f"{i}.png"
        next(load(n=1, seed=i)).images[0].resize((side, side)).save(path)
        row["images"] = [str(path)]
    return Dataset.from_list(data)


def measure(name: str, options: argparse.Namespace) -> Figures:
    _, processor = build_tiny("qwen2_5_vl", size=TinySize(max_image_tokens=IMAGE_TOKENS))
    with tempfile.TemporaryDirectory() as folder:
        data = rows(Path(folder), options.samples, options.side)
        collator: Any = ScaleCollator(
            processor, image_cache=ImageCache(f"{folder}/cache") if name == "cached" else None
        )
        if name == "trl":
            from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

            data = data.cast_column("images", List(Image()))
            collator = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)
        loader = DataLoader(data, BATCH, collate_fn=collator, num_workers=options.workers)
        for i in range(len(data) if name == "cached" else 2):  # fills the cache; imports, lazy tables
            collator([data[i]])
        decoded, load_picture = [0], Pictures.open

        def counted(*args: Any, **kwargs: Any) -> Any:
            decoded[0] += 1
            return load_picture(*args, **kwargs)

        Pictures.open = counted
        wall, cpu = time.perf_counter(), time.process_time()
        tokens = sum(int((batch["labels"] != -100).sum()) for batch in loader)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "samples_per_second": options.samples / wall,
        "cpu_ms_per_sample": 1000 * cpu / options.samples,
        "opened_per_sample": decoded[0] / options.samples,
        "supervised_tokens": tokens,
    }


def main() -> int:
    parser = options_of(__doc__, CONTESTANTS, devices=("cpu",))
    parser.add_argument("--side", type=int, default=512, help="pixels of a picture's side (default 512)")
    parser.add_argument("--samples", type=int, default=96, help="rows (default 96)")
    parser.add_argument("--workers", type=int, default=0, help="processes of the data loader (default 0)")
    options = parser.parse_args()
    if options.measure:
        measured(options.measure, options, measure)
        return 0
    arguments = [f"--{name}={getattr(options, name)}" for name in ("side", "samples", "workers", "threads")]
    about = {"side": options.side, "samples": options.samples, "workers": options.workers}
    result = contest(__file__, options, CONTESTANTS, arguments, "trl", **about)
    columns = {"samples_per_second": "samples/s:.1f"}
    if not options.workers:  # which work in processes of their own
        columns |= {"cpu_ms_per_sample": "CPU ms a sample:.1f", "opened_per_sample": "times opened:.1f"}
    print(table(result, columns, "trl"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
