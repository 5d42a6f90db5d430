"""The embedded study: base -> SFT and base -> SCALe-SFT on the embedded world, both evaluated, one report.

Each part is done once: the same command continues where it was stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from balanced_thinking import runs
from balanced_thinking.evaluation.run import evaluate_model, label
from balanced_thinking.report import write_report
from balanced_thinking.training.recipe import Recipe, load_recipe
from balanced_thinking.training.run import train

ARMS = ("sft", "scale-sft")
TEST_SPLITS = ("test", "test_compositional", "test_longer", "test_paraphrase")
# An output may be this many times as long as the average trace before it counts as truncated.
_ROOM = 2.0


def run_demo(out: Path, *, seeds: Sequence[int], ratio: float, steps: int | None, samples: int) -> Path:
    """Train and evaluate what is missing under `out/<arm>/seed-<k>`, then write `out/report.html` and return it."""
    for seed in seeds:
        for arm in ARMS:
            folder = out / arm / f"seed-{seed}"
            if not runs.finished(folder):
                print(f"\n{arm}, seed {seed}: training in {folder}", flush=True)
                train(_recipe(arm, seed, ratio, steps), folder, resume=(folder / "config.yaml").exists())
            _evaluate(folder, ratio, samples)
    return write_report(out, out / "report.html", out / "report.md")


def _recipe(arm: str, seed: int, ratio: float, steps: int | None) -> Recipe:
    recipe = load_recipe(str(files("balanced_thinking") / "recipes" / "world" / f"{arm}.yaml"))
    recipe.data_options = {**recipe.data_options, "ratio": ratio, "seed": seed}
    recipe.training = {**recipe.training, "seed": seed} | ({"max_steps": steps} if steps else {})
    return recipe


def _evaluate(folder: Path, ratio: float, samples: int) -> None:
    for split in TEST_SPLITS:
        out = folder / "eval" / label("world", split)
        if (out / "summary.json").is_file():
            continue
        evaluate_model(
            str(folder),
            "world",
            split=split,
            out=out,
            batch_size=200,
            max_new_tokens=int(_ROOM * 5 * ratio) + 64,
            options={"n": samples},
        )
