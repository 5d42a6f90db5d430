"""One run of a study in a process of its own: what its training and evaluations lack, and the ledger's rows.

    python -m balanced_thinking.study.worker STUDY_FOLDER RUN_NAME

The plan is read back from the study's folder, so that every process works on one and the same.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.evaluation.benchmarks import Benchmark
from balanced_thinking.runs.directory import is_finished, read_provenance
from balanced_thinking.runs.ledger import ledger_entry
from balanced_thinking.runs.paths import CONFIG, LOG, RunFiles, StudyFiles
from balanced_thinking.study.changes import begun_otherwise, differs_from_its_run
from balanced_thinking.study.plan import Node, load_study
from balanced_thinking.system.ending import clean_up_on_sigterm
from balanced_thinking.system.files import exclusive_lock


def missing(root: Path, node: Node) -> list[str]:
    """The parts of a run that are not done yet: `train`, then the labels of its evaluations."""
    folder = root / node.name
    parts = [] if is_finished(folder) else ["train"]
    return parts + [name for name in node.evaluations if not RunFiles(folder).evaluation(name).summary.is_file()]


def work(root: Path, node: Node) -> None:
    """Do what is missing of a run; each part is entered in the ledger when it is complete."""
    folder = root / node.name
    if "train" in missing(root, node):
        from balanced_thinking.training.run import train

        with ledger_entry(root, node.name, "train") as entry:
            recipe = replace(node.recipe, model=str(root / node.after)) if node.after else node.recipe
            train(recipe, folder, resume=RunFiles(folder).config.exists())
            entry.update(_trained(folder))
    for name, (benchmark, split) in node.evaluations.items():
        if name in missing(root, node):
            with ledger_entry(root, node.name, name) as entry:
                entry.update(_evaluate(folder, benchmark, split))


def settle(folder: Path, node: Node) -> None:
    """Let a training that began with another recipe start anew, and keep what there is of it. Raises RecipeError where
    one was finished in the meantime, by a worker that outlived its study."""
    if changed := differs_from_its_run(folder, node):
        raise RecipeError(f"{folder} was finished with another recipe: {'; '.join(changed[:3])}; remove it")
    if changed := begun_otherwise(folder, node):
        aside = next(place for k in count(1) if not (place := folder.with_name(f".{folder.name}-{k}")).exists())
        aside.mkdir()
        moved = [path for path in folder.iterdir() if path.name not in (LOG, ".lock")]
        # The recipe goes last: after a kill in between, what is left is still known to be another's.
        for path in sorted(moved, key=lambda path: path.name == CONFIG):
            path.rename(aside / path.name)
        print(f"{'; '.join(changed)}: training starts anew, and what there was is kept in {aside}", flush=True)


def _evaluate(folder: Path, benchmark: Benchmark, split: str) -> dict[str, Any]:
    from balanced_thinking.evaluation.resume import ranks
    from balanced_thinking.evaluation.run import evaluate

    summary = evaluate(
        str(folder),
        benchmark.data,
        split=split,
        prompt=benchmark.prompt,
        scorer=benchmark.scorer,
        batch_size=benchmark.batch_size,
        max_new_tokens=benchmark.max_new_tokens,
        limit=benchmark.limit,
        on_bad_row=benchmark.on_bad_row,
        options=dict(benchmark.options),
    )
    tokens = round(summary.n * (summary.think_tokens_mean + summary.answer_tokens_mean))
    seconds = {"wall_seconds": round(summary.wall_seconds, 2), "cpu_seconds": round(summary.cpu_seconds, 2)}
    return {"tokens": tokens, "device": str(ranks().device)} | seconds


def _trained(folder: Path) -> dict[str, Any]:
    """What the run recorded. Its seconds count what was spent before it was killed and continued, too."""
    about = read_provenance(folder)
    assert about is not None  # the training wrote it
    seconds = {"wall_seconds": about.train_seconds, "cpu_seconds": about.train_cpu_seconds}
    return {"steps": about.steps, "tokens": about.tokens, "device": about.device, **seconds}


def main() -> int:
    root, name = Path(sys.argv[1]), sys.argv[2]
    node = next(node for node in load_study(StudyFiles(root).plan).nodes() if node.name == name)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # A worker that outlived a killed study may still be at it: two never write one run.
    with clean_up_on_sigterm(), exclusive_lock(root / node.name, wait=True):
        settle(root / node.name, node)
        work(root, node)
    return 0


if __name__ == "__main__":
    sys.exit(main())
