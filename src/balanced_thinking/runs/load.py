"""Run directories as plain values: what every run recorded about itself, and its evaluations.

Any file of a run may be missing or incomplete, as in a run that has not finished. That becomes a note, never an error.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from balanced_thinking.config.errors import UsageError
from balanced_thinking.runs.evaluations import Evaluation, load_evaluation
from balanced_thinking.runs.files import note_problem, path_in_run, read_json_lines, read_mapping
from balanced_thinking.runs.find import (
    SEED_FOLDER,
    TRAINING_FILES,
    RunFolder,
    explain_missing_runs,
    find_runs,
    list_folders,
)
from balanced_thinking.runs.manifest import manifest_digest
from balanced_thinking.runs.paths import EVALUATIONS, PREDICTIONS, RunFiles
from balanced_thinking.runs.records import (
    MetricsRow,
    Provenance,
    RecordError,
    UnknownSchemaError,
    read_metrics_row,
    read_record,
)
from balanced_thinking.system.progress import track_progress

logger = logging.getLogger(__name__)
# Of a folder that somebody else may have filled.
MOST_RUNS, MOST_SPLITS, MOST_METRICS = 2000, 200, 100_000
MOST_HASHED_BYTES = 1 << 32
_LONGEST_NAME = 200  # characters of an arm


class NoRunsError(UsageError, ValueError):
    """A folder without a run."""


@dataclass(frozen=True)
class Run:
    """One arm with one seed. `train_cost_seconds` is None where the run has not recorded it. `hashes` are SHA-256."""

    arm: str
    seed: int | None
    folder: Path
    config: Mapping[str, Any]
    provenance: Provenance | None
    metrics: tuple[MetricsRow, ...]
    evaluations: Mapping[str, Evaluation]
    hashes: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def label(self) -> str:
        return self.arm if self.seed is None else f"{self.arm}, seed {self.seed}"

    @property
    def was_trained(self) -> bool:
        """Whether anything of its training is here. A base model is only evaluated."""
        return bool(self.config or self.provenance or self.metrics)

    @property
    def is_seedless(self) -> bool:
        """Whether it was not trained here. Its greedy answers have no seed, so they are compared with every seed."""
        return not self.was_trained and not SEED_FOLDER.fullmatch(self.folder.name)

    @property
    def stage(self) -> str:
        return str(self.config.get("stage") or "sft")

    @property
    def train_cost_seconds(self) -> float | None:
        """Of this run alone, without its parents. On a CPU it is processor time, which other processes disturb less."""
        if self.provenance is None:
            return None
        of_cpu = self.provenance.train_cpu_seconds if self.provenance.device == "cpu" else None
        return self.provenance.train_seconds if of_cpu is None else of_cpu


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are not None; None where there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def load_runs(runs_dir: Path) -> list[Run]:
    """Every run below `runs_dir`, sorted by arm and seed.

    Raises NoRunsError when the folder holds no run. The message says what was found and which command makes runs.
    """
    places = find_runs(runs_dir)
    if not places:
        raise NoRunsError(explain_missing_runs(runs_dir))
    if len(places) > MOST_RUNS:
        logger.warning("%s has %d runs; the first %d are read", runs_dir, len(places), MOST_RUNS)
    runs = _load_readable_runs(places[:MOST_RUNS])
    return sorted(_repeat_seedless_runs(runs), key=lambda run: (run.arm, -1 if run.seed is None else run.seed))


def _load_readable_runs(places: Sequence[RunFolder]) -> list[Run]:
    """The runs that can be read, with notes on the others. Raises the first error where none can be."""
    runs: list[Run] = []
    failures: list[Exception] = []
    notes: list[str] = []
    for folder, arm in track_progress(places, "reading runs"):
        try:
            runs.append(load_run(folder, arm))
        except (OSError, RecordError, RecursionError) as error:
            failures.append(error)
            note_problem(notes, f"{folder.name} of {folder.parent.name} is left out: {error}")
    if failures and not runs:
        raise failures[0]
    return [replace(runs[0], notes=(*runs[0].notes, *notes)), *runs[1:]] if notes else runs


def _repeat_seedless_runs(runs: Sequence[Run]) -> Iterator[Run]:
    """The runs, with one copy of a seedless model for every seed, because arms are compared seed by seed."""
    seeds = sorted({run.seed for run in runs if run.was_trained and run.seed is not None})
    for run in runs:
        if not run.is_seedless or not seeds:
            yield run
        else:
            yield replace(run, seed=seeds[0])
            yield from (replace(run, seed=seed, notes=()) for seed in seeds[1:])


def load_run(folder: Path, arm: str | None = None) -> Run:
    """One run directory. `Run.notes` name what is missing or damaged."""
    notes: list[str] = []
    if not any((folder / name).exists() for name in TRAINING_FILES):
        return _load_untrained_run(folder, arm)
    files = RunFiles(folder)
    provenance = _read_provenance_or_note(files.provenance, notes)
    trained = not (provenance and provenance.finished and not provenance.train_seconds)
    config = read_mapping(files.config, notes)
    metrics = tuple(_read_metrics(files.metrics, notes, required=trained))
    evaluations = _load_evaluations(files, notes)
    _mark_outdated(evaluations.values(), files.model, notes)
    if not evaluations:
        notes.append("no evaluation yet: eval/<data>-<split>/ is missing")
    if provenance and not provenance.finished:
        notes.append("the run has not finished: provenance.json has no end time")
    # CPU seconds are recorded since all parts are counted; a run from before that has none.
    if provenance and provenance.earlier and provenance.train_cpu_seconds is None:
        notes.append("it was stopped and continued: its training time covers the last part only")
    name = arm or (provenance and provenance.arm and provenance.arm[:_LONGEST_NAME]) or folder.resolve().name
    return Run(
        arm=name,
        seed=_read_seed(folder, provenance),
        folder=folder,
        config=config,
        provenance=provenance,
        metrics=metrics,
        evaluations=evaluations,
        hashes=_hash_config_and_predictions(folder),
        notes=tuple(notes),
    )


def _load_untrained_run(folder: Path, arm: str | None) -> Run:
    """A model that was only evaluated here, such as the base model from which runs start."""
    notes = ["no training files: its answers are compared with those of every seed"]
    evaluations = _load_evaluations(RunFiles(folder), notes)
    return Run(
        arm=arm or folder.resolve().name,
        seed=_read_seed(folder, None),
        folder=folder,
        config={},
        provenance=None,
        metrics=(),
        evaluations=evaluations,
        hashes=_hash_config_and_predictions(folder),
        notes=tuple(notes),
    )


def _mark_outdated(evaluations: Iterable[Evaluation], model: Path, notes: list[str]) -> None:
    """Marks the results of a model that was trained further since."""
    present = manifest_digest(model)
    for one in evaluations:
        recorded = one.summary.model_digest if one.summary else ""
        if present and recorded and recorded != present:
            one.is_outdated = True
            notes.append(f"eval/{one.split} is of an earlier state of the model, trained since: evaluate again")


def _load_evaluations(files: RunFiles, notes: list[str]) -> dict[str, Evaluation]:
    folders = list_folders(files.evaluations)
    if len(folders) > MOST_SPLITS:
        note_problem(notes, f"eval/ has {len(folders)} folders; the first {MOST_SPLITS} are read")
    return {split.name: load_evaluation(split, notes) for split in folders[:MOST_SPLITS]}


def _hash_config_and_predictions(folder: Path) -> dict[str, str]:
    """The first 16 digits of the SHA-256 of the configuration and of every split's predictions, by a label.

    A file of more than `MOST_HASHED_BYTES` has none: it may have holes, and be of any size.
    """
    hashes = {}
    for path in [RunFiles(folder).config, *sorted(folder.glob(f"{EVALUATIONS}/*/{PREDICTIONS}"))]:
        if path.is_file() and not path.is_symlink():
            with suppress(OSError), path.open("rb") as file:
                if os.fstat(file.fileno()).st_size > MOST_HASHED_BYTES:
                    continue
                hashes[f"sha256 of {path_in_run(path)}"] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return hashes


def _read_seed(folder: Path, provenance: Provenance | None) -> int | None:
    match = SEED_FOLDER.fullmatch(folder.name)
    if match:
        return int(match[1])
    return provenance.seed if provenance else None


def _read_provenance_or_note(path: Path, notes: list[str]) -> Provenance | None:
    values = read_mapping(path, notes)
    try:
        return read_record(Provenance, values, path_in_run(path)) if values else None
    except UnknownSchemaError:
        raise
    except RecordError as error:
        note_problem(notes, f"{error}: it is not used")
        return None


def _read_metrics(path: Path, notes: list[str], *, required: bool) -> Iterator[MetricsRow]:
    unusable = 0
    for read, values in enumerate(read_json_lines(path, notes, required=required)):
        if read >= MOST_METRICS:
            note_problem(notes, f"{path_in_run(path)}: the rows after the first {MOST_METRICS:,} are left out")
            break
        try:
            row = read_metrics_row(values, str(path))
        except RecordError:
            unusable += 1
        else:
            yield row._replace(values={k: v for k, v in row.values.items() if isinstance(v, int | float)})
    if unusable:
        notes.append(f"{path_in_run(path)}: {unusable} rows have no step and are left out")
