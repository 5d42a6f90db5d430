"""Finished parts of runs that have no row in the ledger: a kill came between the end of a part and its row."""

from __future__ import annotations

import logging
from pathlib import Path

from balanced_thinking.runs.directory import is_finished, read_provenance
from balanced_thinking.runs.evaluations import read_summary
from balanced_thinking.runs.ledger import read_ledger, write_ledger_entry
from balanced_thinking.runs.paths import RunFiles
from balanced_thinking.runs.records import LedgerEntry
from balanced_thinking.study.plan import PlannedRun
from balanced_thinking.system.locks import FolderBusyError, hold_folder

logger = logging.getLogger(__name__)


def record_unrecorded_runs(root: Path, runs: list[PlannedRun]) -> None:
    """`record_unrecorded_parts` of every run that no other process works in: that one writes its rows itself."""
    for run in runs:
        if not unrecorded_parts(root, run):
            continue
        try:
            with hold_folder(root / run.name, "been writing its costs to the ledger"):
                record_unrecorded_parts(root, run)
        except FolderBusyError:
            continue


def record_unrecorded_parts(root: Path, run: PlannedRun) -> None:
    """Write the rows of finished parts that have none, from what the parts themselves have recorded.

    Only the process that works in the run's folder may call it.
    """
    for part in unrecorded_parts(root, run):
        write_ledger_entry(
            root, _recorded_training(root, run) if part == "train" else _recorded_result(root, run, part)
        )
        logger.info("%s: %s was finished, but not in the ledger; its row is written now", run.name, part)


def unrecorded_parts(root: Path, run: PlannedRun) -> list[str]:
    """The finished parts without a row: `train`, then the names of evaluations."""
    files = RunFiles(root / run.name)
    finished = ["train"] if is_finished(files.folder) else []
    finished += [name for name in run.evaluations if files.evaluation(name).summary.is_file()]
    recorded = {row.part for row in read_ledger(root, []) if row.run == run.name} if finished else set()
    return [part for part in finished if part not in recorded]


def _recorded_training(root: Path, run: PlannedRun) -> LedgerEntry:
    about = read_provenance(root / run.name)
    assert about is not None  # it is finished
    return LedgerEntry(
        run=run.name,
        part="train",
        started=about.started,
        steps=about.steps,
        tokens=about.tokens,
        device=about.device,
        wall_seconds=about.train_seconds,
        cpu_seconds=about.train_cpu_seconds,
        gpu_seconds=None if about.device == "cpu" else about.train_seconds,
        peak_mib=about.peak_mib,
    )


def _recorded_result(root: Path, run: PlannedRun, name: str) -> LedgerEntry:
    summary, about = read_summary(RunFiles(root / run.name).evaluation(name)), read_provenance(root / run.name)
    device = about.device if about is not None else None
    seconds = round(summary.wall_seconds, 2)
    return LedgerEntry(
        run=run.name,
        part=name,
        tokens=round(summary.n * (summary.think_tokens_mean + summary.answer_tokens_mean)),
        device=device,
        wall_seconds=seconds,
        cpu_seconds=round(summary.cpu_seconds, 2),
        gpu_seconds=None if device == "cpu" else seconds,
    )
