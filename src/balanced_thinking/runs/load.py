"""Run directories as plain values: what every run says about itself, and its evaluations.

Any file of a run may be missing or cut short, as in a run that is still going: what is missing becomes a note, never a
failure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from balanced_thinking.runs.evaluations import Evaluation, load_evaluation
from balanced_thinking.runs.files import place, read_lines, read_mapping
from balanced_thinking.runs.find import SEED_FOLDER, TRAINING_FILES, find_runs, folders, nothing_found
from balanced_thinking.runs.paths import EVALUATIONS, PREDICTIONS, RunFiles
from balanced_thinking.runs.records import (
    MetricsRow,
    Provenance,
    RecordError,
    UnknownSchemaError,
    read_metrics_row,
    read_record,
)
from balanced_thinking.system.progress import track


@dataclass(frozen=True)
class Run:
    """One arm with one seed. `train_seconds` is None when the run does not say; `hashes` are SHA-256 of its files."""

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
    def trained(self) -> bool:
        """Whether anything is known of its training: a base model is evaluated only."""
        return bool(self.config or self.provenance or self.metrics)

    @property
    def seedless(self) -> bool:
        """Whether it was not trained here, so that its greedy answers, which have no seed, stand beside every one."""
        return not self.trained and not SEED_FOLDER.fullmatch(self.folder.name)

    @property
    def stage(self) -> str:
        return str(self.config.get("stage") or "sft")

    @property
    def train_seconds(self) -> float | None:
        """Of this run alone, without those it started from; on a CPU the processor's, which neighbours disturb less."""
        if self.provenance is None:
            return None
        of_cpu = self.provenance.train_cpu_seconds if self.provenance.device == "cpu" else None
        return self.provenance.train_seconds if of_cpu is None else of_cpu


def mean(values: Iterable[float | None]) -> float | None:
    """Of the known values; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def load_runs(runs_dir: Path) -> list[Run]:
    """Every run below `runs_dir`, sorted by arm and seed.

    Raises ValueError when the folder holds no run: it says what was found and which command makes such a folder.
    """
    places = find_runs(runs_dir)
    if not places:
        raise ValueError(nothing_found(runs_dir))
    runs = [load_run(folder, arm) for folder, arm in track(places, "reading runs")]
    return sorted(_at_each_seed(runs), key=lambda run: (run.arm, -1 if run.seed is None else run.seed))


def _at_each_seed(runs: Sequence[Run]) -> Iterator[Run]:
    """The runs, of which a model that has no seed stands beside every one: arms are compared seed by seed."""
    seeds = sorted({run.seed for run in runs if run.trained and run.seed is not None})
    for run in runs:
        if not run.seedless or not seeds:
            yield run
        else:
            yield replace(run, seed=seeds[0])
            yield from (replace(run, seed=seed, notes=()) for seed in seeds[1:])


def load_run(folder: Path, arm: str | None = None) -> Run:
    """One run directory; whatever is missing or damaged in it is told in `notes`."""
    notes: list[str] = []
    if not any((folder / name).exists() for name in TRAINING_FILES):
        return _untrained(folder, arm)
    files = RunFiles(folder)
    provenance = _read_provenance(files.provenance, notes)
    trained = not (provenance and provenance.finished and not provenance.train_seconds)
    config = read_mapping(files.config, notes)
    metrics = tuple(_read_metrics(files.metrics, notes, required=trained))
    evaluations = {split.name: load_evaluation(split, notes) for split in folders(files.evaluations)}
    if not evaluations:
        notes.append("no evaluation yet: eval/<data>-<split>/ is missing")
    if provenance and not provenance.finished:
        notes.append("the run has not finished: provenance.json gives no time of its end")
    if (
        provenance and provenance.earlier and provenance.train_cpu_seconds is None
    ):  # recorded since all parts are counted
        notes.append("it was stopped and continued: its training time is that of the last part alone")
    name = arm or (provenance and provenance.arm) or folder.resolve().name
    return Run(
        arm=name,
        seed=_seed(folder, provenance),
        folder=folder,
        config=config,
        provenance=provenance,
        metrics=metrics,
        evaluations=evaluations,
        hashes=_hashes(folder),
        notes=tuple(notes),
    )


def _untrained(folder: Path, arm: str | None) -> Run:
    """A model that was evaluated and of whose training nothing is here, such as the base that runs start from."""
    notes = ["nothing of its training is here: its answers are compared with those of every seed"]
    evaluations = {split.name: load_evaluation(split, notes) for split in folders(RunFiles(folder).evaluations)}
    seed = _seed(folder, None)
    return Run(arm or folder.resolve().name, seed, folder, {}, None, (), evaluations, _hashes(folder), tuple(notes))


def _hashes(folder: Path) -> dict[str, str]:
    """The first 16 digits of the SHA-256 of the configuration and of every split's predictions."""
    hashes = {}
    for path in [RunFiles(folder).config, *sorted(folder.glob(f"{EVALUATIONS}/*/{PREDICTIONS}"))]:
        if path.is_file():
            with path.open("rb") as file:
                hashes[f"sha256 of {place(path)}"] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return hashes


def _seed(folder: Path, provenance: Provenance | None) -> int | None:
    match = SEED_FOLDER.fullmatch(folder.name)
    if match:
        return int(match[1])
    return provenance.seed if provenance else None


def _read_provenance(path: Path, notes: list[str]) -> Provenance | None:
    values = read_mapping(path, notes)
    try:
        return read_record(Provenance, values, place(path)) if values else None
    except UnknownSchemaError:
        raise
    except RecordError as error:
        notes.append(f"{error}: it is not used")
        return None


def _read_metrics(path: Path, notes: list[str], *, required: bool) -> Iterator[MetricsRow]:
    unusable = 0
    for values in read_lines(path, notes, required=required):
        try:
            yield read_metrics_row(values, str(path))
        except RecordError:
            unusable += 1
    if unusable:
        notes.append(f"{place(path)}: {unusable} rows have no step and are left out")
