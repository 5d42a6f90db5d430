"""A file of 200,000 reasoned answers, from disk to checked, memory-mapped training rows: seconds and memory.

    python benchmarks/index.py [--rows 200000] [--rounds 3] [--only list] [--json FILE]

Command of record: python benchmarks/index.py --json benchmarks/results/index-cpu.json (one CPU core, 5 minutes).
A JSON array in Vision-R1-cold's schema, 2.7 kB a row, with 1,000 small pictures; each contestant in its own process:

| contestant | what it is |
| --- | --- |
| `rows` | `to_dataset(stream_data(...))`, what training does: rows parsed, pictures looked for, written to Arrow |
| `list` | `load_data(...)`: the same, kept in memory as Examples |
| `datasets` | `load_dataset("json")`: the rows as they are, neither parsed nor checked; a peer for scale |
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from harness import Figures, contest, measured, options_of, table

CONTESTANTS = ("rows", "list", "datasets")
PICTURES = 1000
_WORDS = ("the", "triangle", "has", "a", "side", "of", "seven", "units", "so", "its", "area", "is", "half", "option")


def write(folder: Path, rows: int) -> None:
    """`vision_r1_llava_cot_full.json` and its pictures."""
    place = folder / "llava_cot_images"
    place.mkdir()
    for k in range(PICTURES):
        Image.new("RGB", (8, 8), (k % 256, k // 256, 0)).save(place / f"{k}.png")
    draw = random.Random(0)
    with (folder / "vision_r1_llava_cot_full.json").open("w") as file:
        for k in range(rows):
            think, question = (" ".join(draw.choices(_WORDS, k=n)) for n in (450, 40))
            said = f"<think>\n{think}\n</think>\n\n<answer> Final Answer:{draw.choice('ABCD')} </answer>"
            turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": said}]
            row = {"id": f"row-{k}", "image": f"llava_cot_images/{k % PICTURES}.png", "conversations": turns}
            file.write(("[" if k == 0 else ",\n") + json.dumps(row))
        file.write("]\n")


def measure(name: str, options: argparse.Namespace) -> Figures:
    folder, cpu_start = str(options.folder), time.process_time()
    if name == "datasets":
        import datasets

        start, file = time.perf_counter(), f"{folder}/vision_r1_llava_cot_full.json"
        with tempfile.TemporaryDirectory() as cache:
            count = len(datasets.load_dataset("json", data_files=file, split="train", cache_dir=cache))
    else:
        from balanced_thinking.data.load import load_data, stream_data
        from balanced_thinking.data.rows import to_dataset

        start = time.perf_counter()
        count = len(to_dataset(stream_data(folder)) if name == "rows" else load_data(folder).examples)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    assert count == options.rows
    return {"seconds": seconds, "cpu_seconds": cpu, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    parser = options_of(__doc__, CONTESTANTS, rounds=3, devices=("cpu",))
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--only", choices=CONTESTANTS, help="one contestant instead of all")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measured(options.measure, options, measure)
        return
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), options.rows)
        arguments = [*sys.argv[1:], "--folder", folder]
        chosen = CONTESTANTS if options.only is None else (options.only,)
        rows = contest(__file__, options, chosen, arguments, "rows", samples=options.rows)
    print(table(rows, {"seconds": "seconds:.1f", "mib": "peak MiB:.0f"}, "rows"))


if __name__ == "__main__":
    main()
