"""The check of all rows before the first step: seconds and memory, at a first start and at a second one.

    python benchmarks/preflight.py [--rows 200000] [--pictures 5000] [--rounds 1] [--json FILE]

Command of record: python benchmarks/preflight.py --json benchmarks/results/preflight-cpu.json (two CPU cores).
Each contestant reads and checks its data in its own process, as `balanced sft` does before the model is loaded:

| contestant | what it is |
| --- | --- |
| `text` | JSON Lines of 2.7 kB a row, without pictures, read and checked |
| `text again` | the same data, read and checked before |
| `pictures` | JPEG files of 512 x 512 pixels, one a row, each decoded |
| `pictures again` | the same data, read and checked before |
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from harness import Figures, contest, measured, options_of, table

CONTESTANTS = ("text", "text again", "pictures", "pictures again")
_WORDS = ("the", "triangle", "has", "a", "side", "of", "seven", "units", "so", "its", "area", "is", "half", "option")
_SIDE = 512


def write_rows(file: Path, rows: int, think_words: int, pictures: bool) -> None:
    draw = random.Random(0)
    noise = Image.effect_noise((_SIDE, _SIDE), 80).convert("RGB")
    with file.open("w") as stream:
        for k in range(rows):
            think, question = (" ".join(draw.choices(_WORDS, k=n)) for n in (think_words, 40))
            row = {"id": f"row-{k}", "question": question, "think": think, "answer": draw.choice("ABCD")}
            if pictures:
                row["image"] = f"{k}.jpg"
                noise.rotate(draw.choice((0, 90, 180))).save(file.parent / row["image"], quality=70 + k % 25)
            stream.write(json.dumps(row) + "\n")


def check(data: Path, out: Path) -> int:
    """What `balanced sft` does before it loads a model; the number of rows that it would train on."""
    from balanced_thinking.training.checked_data import load_checked_data
    from balanced_thinking.training.model_checks import load_training_processor
    from balanced_thinking.training.recipe import Recipe
    from balanced_thinking.training.stages import training_arguments

    recipe = Recipe(data=str(data), training={"use_cpu": True})
    args = training_arguments(recipe, out)
    processor = load_training_processor(recipe, args)
    return len(load_checked_data(recipe, args, processor, out, resume=False).training.rows)


def measure(name: str, options: argparse.Namespace) -> Figures:
    kind, _, again = name.partition(" ")
    data = options.folder / kind / "train.jsonl"
    with tempfile.TemporaryDirectory(dir=options.folder) as store:
        os.environ["BALANCED_THINKING_CACHE"] = store if not again else str(options.folder / "store")
        if again:
            check(data, options.folder / "run")  # a first start, unless a round before has stored its result
        start = time.perf_counter()
        count = check(data, options.folder / "run")
        seconds = time.perf_counter() - start
    assert count == (options.rows if kind == "text" else options.pictures)
    of_self, of_worker = (
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {"seconds": seconds, "mib": of_self, "worker_mib": of_worker}


def main() -> None:
    parser = options_of(__doc__, CONTESTANTS, rounds=1, devices=("cpu",))
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--pictures", type=int, default=5_000)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measured(options.measure, options, measure)
        return
    with tempfile.TemporaryDirectory() as folder:
        for kind, rows, words in (("text", options.rows, 450), ("pictures", options.pictures, 80)):
            (Path(folder) / kind).mkdir()
            write_rows(Path(folder) / kind / "train.jsonl", rows, words, kind == "pictures")
        arguments = [*sys.argv[1:], "--folder", folder]
        found = contest(__file__, options, CONTESTANTS, arguments, "text", samples=options.rows)
    print(table(found, {"seconds": "seconds:.1f", "mib": "peak MiB:.0f", "worker_mib": "of a worker:.0f"}, "text"))


if __name__ == "__main__":
    main()
