"""One run of a study in a process of its own: its missing parts, and a row in the ledger for each.

    python -m balanced_thinking.study.worker STUDY_FOLDER RUN_NAME [--parent PID] [--plan SHA256] [--source SHA256]

The plan is read from the study's folder, so that all processes work on the same one. On another machine than that of
the study, the digests say which plan and which code are meant.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.data.bad_rows import BadRowsError
from balanced_thinking.evaluation.benchmarks import Benchmark
from balanced_thinking.runs.directory import is_finished, read_provenance
from balanced_thinking.runs.ledger import append_ledger_entry
from balanced_thinking.runs.paths import CONFIG, LOG, RunFiles, StudyFiles
from balanced_thinking.study.changes import recipe_changes_of_finished_run, recipe_changes_of_unfinished_run
from balanced_thinking.study.executors.code_version import source_digest
from balanced_thinking.study.executors.shared_folder import file_digest, wait_until
from balanced_thinking.study.load import load_study
from balanced_thinking.study.plan import PlannedRun
from balanced_thinking.study.unrecorded import record_unrecorded_parts
from balanced_thinking.system.crash import FAILED, Crash, run_with_last_handler
from balanced_thinking.system.ending import clean_up_on_sigterm, stop_with_parent
from balanced_thinking.system.known_errors import describe_known_error
from balanced_thinking.system.locks import LOCK, hold_folder
from balanced_thinking.system.logs import log_to_stderr
from balanced_thinking.system.memory import describe_memory_error
from balanced_thinking.system.signals import StoppedEarly
from balanced_thinking.training.recipe import Recipe

logger = logging.getLogger("balanced_thinking.study.worker")  # run with -m, its __name__ is another


def missing_parts(root: Path, run: PlannedRun) -> list[str]:
    """The parts of a run that are not done yet: `train`, then the names of its evaluations."""
    folder = root / run.name
    parts = [] if is_finished(folder) else ["train"]
    return parts + [name for name in run.evaluations if not RunFiles(folder).evaluation(name).summary.is_file()]


def run_missing_parts(root: Path, run: PlannedRun) -> None:
    """Do the missing parts of a run. Each enters the ledger when it is complete."""
    folder = root / run.name
    record_unrecorded_parts(root, run)
    if "train" in missing_parts(root, run):
        with append_ledger_entry(root, run.name, "train") as entry:
            recipe = replace(run.recipe, model=str(root / run.after)) if run.after else run.recipe
            stopped = _train_or_stop(recipe, folder)
            entry.update(_training_cost_values(folder))
        if stopped is not None:
            raise stopped
    for name, (benchmark, split) in run.evaluations.items():
        if name in missing_parts(root, run):
            with append_ledger_entry(root, run.name, name) as entry:
                entry.update(_evaluate_and_measure_cost(folder, benchmark, split, run.dtype))


def _train_or_stop(recipe: Recipe, folder: Path) -> StoppedEarly | None:
    """Train, and return the request to stop that a finished training has met. Raises that of an unfinished one."""
    from balanced_thinking.training.run import train

    try:
        train(recipe, folder, resume=RunFiles(folder).config.exists())
    except StoppedEarly as stop:
        if not is_finished(folder):
            raise
        return stop
    return None


def restart_if_recipe_changed(folder: Path, run: PlannedRun) -> None:
    """Move a training that began with another recipe to a folder beside it, so that it starts from the beginning.

    Raises RecipeError where such a run is finished: a worker that outlived its study can do that.
    """
    if changed := recipe_changes_of_finished_run(folder, run):
        raise RecipeError(
            f"{folder} was finished with another recipe: {'; '.join(changed[:3])}; delete this folder to train it "
            "again, or undo the change in the study"
        )
    if changed := recipe_changes_of_unfinished_run(folder, run):
        aside = next(place for k in count(1) if not (place := folder.with_name(f".{folder.name}-{k}")).exists())
        aside.mkdir()
        moved = [path for path in folder.iterdir() if path.name not in (LOG, LOCK)]
        # The recipe moves last: after a kill in between, it still shows that the rest belongs to another recipe.
        for path in sorted(moved, key=lambda path: path.name == CONFIG):
            path.rename(aside / path.name)
        logger.info("%s: training starts from the beginning; the old files are in %s", "; ".join(changed), aside)


def _evaluate_and_measure_cost(folder: Path, benchmark: Benchmark, split: str, dtype: str) -> dict[str, Any]:
    from balanced_thinking.evaluation.engines.start import EngineOptions
    from balanced_thinking.evaluation.resume import evaluation_ranks
    from balanced_thinking.evaluation.run import evaluate_benchmarks

    # The plan decides: what an earlier one has answered of an evaluation that it did not finish is deleted.
    chosen = [replace(benchmark, splits=(split,))]
    (found,) = evaluate_benchmarks(str(folder), chosen, engine=EngineOptions(dtype=dtype), overwrite=True)
    summary = found.summary
    tokens = round(summary.n * (summary.think_tokens_mean + summary.answer_tokens_mean))
    seconds = {"wall_seconds": round(summary.wall_seconds, 2), "cpu_seconds": round(summary.cpu_seconds, 2)}
    return {"tokens": tokens, "device": str(evaluation_ranks().device)} | seconds


def _training_cost_values(folder: Path) -> dict[str, Any]:
    """What the run recorded. Its seconds include the time before it was killed and continued."""
    about = read_provenance(folder)
    assert about is not None  # the training wrote it
    seconds = {"wall_seconds": about.train_seconds, "cpu_seconds": about.train_cpu_seconds}
    return {"steps": about.steps, "tokens": about.tokens, "device": about.device, **seconds}


def main() -> int:
    """Exit code 0, or 1 after one sentence. An unexpected error also leaves a file in the run's folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("name")
    parser.add_argument("--parent", type=int, help="number of the parent process, with which this one saves and stops")
    parser.add_argument("--plan", help="SHA-256 of the study's plan")
    parser.add_argument("--source", help="SHA-256 of the code, see `source_digest`")
    words = parser.parse_args()
    if words.parent is not None:
        stop_with_parent(words.parent)
    command = ("balanced study", *sys.argv[1:])
    return run_with_last_handler(lambda: _run_or_report(words), Crash(command, words.root / words.name))


def _run_or_report(words: argparse.Namespace) -> int:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with log_to_stderr():
        try:
            _refuse_other_code(words.source)
            _wait_for_plan(words.root, words.plan)
            _run_worker(words.root, words.name)
        except StoppedEarly as stop:
            logger.error("%s", stop)
            return 128 + stop.number
        except Exception as error:  # what has no sentence is for the last handler
            known = error.table() if isinstance(error, BadRowsError) else describe_known_error(error)
            if (said := known or describe_memory_error(error)) is None:
                raise
            logger.error("%s", said)
            return FAILED
    return 0


def _refuse_other_code(source: str | None) -> None:
    """A node may have joined a cluster after its nodes were checked."""
    if source is not None and source != source_digest():
        raise RecipeError(
            f"this node ({socket.gethostname()}) has other code than the study: its source is "
            f"{source_digest()[:12]}, expected {source[:12]}; install the same version of balanced-thinking there"
        )


def _wait_for_plan(root: Path, plan: str | None) -> None:
    """A network file system may show an older plan for a while."""
    path = StudyFiles(root).plan
    if plan is not None and not wait_until(lambda: file_digest(path) == plan, [root]):
        raise RecipeError(
            f"this node ({socket.gethostname()}) finds another {path} than the study has written; expected one folder "
            "that all nodes share: choose another --out"
        )


def _wait_for_parent(root: Path, run: PlannedRun) -> None:
    """The run that this one starts from has finished; on a network file system this node may not see that yet."""
    if run.after is not None and "train" in missing_parts(root, run):
        parent = root / run.after
        wait_until(lambda: is_finished(parent), [parent.parent, parent])


def _run_worker(root: Path, name: str) -> None:
    run = next(run for run in load_study(StudyFiles(root).plan).planned_runs() if run.name == name)
    # A worker that outlived a killed study may still be running. Two processes must never write one run.
    with clean_up_on_sigterm(), hold_folder(root / run.name, "training", wait=True):
        restart_if_recipe_changed(root / run.name, run)
        _wait_for_parent(root, run)
        run_missing_parts(root, run)


if __name__ == "__main__":
    sys.exit(main())
