"""Run directories as plain values: what every run says about itself, and its evaluations.

Any file of a run may be missing or cut short, as in a run that is still going: what is missing becomes a note, never a
failure.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from balanced_thinking.runs.evaluations import Evaluation, load_evaluation
from balanced_thinking.runs.files import number, place, read_lines, read_mapping
from balanced_thinking.runs.find import SEED_FOLDER, TRAINING_FILES, find_runs, folders, nothing_found


@dataclass(frozen=True)
class Run:
    """One arm with one seed. `train_seconds` is None when the run does not say; `hashes` are SHA-256 of its files."""

    arm: str
    seed: int | None
    folder: Path
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]
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
        of_cpu = self.provenance.get("train_cpu_seconds") if self.provenance.get("device") == "cpu" else None
        return number(self.provenance.get("train_seconds") if of_cpu is None else of_cpu)


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
    console = Console(stderr=True)
    steps = track(places, "reading runs", console=console, transient=True, disable=not sys.stderr.isatty())
    runs = [load_run(folder, arm) for folder, arm in steps]
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
    provenance = read_mapping(folder / "provenance.json", notes)
    trained = not (provenance.get("finished") and not provenance.get("train_seconds"))
    config = read_mapping(folder / "config.yaml", notes)
    metrics = tuple(read_lines(folder / "metrics.jsonl", notes, required=trained))
    evaluations = {split.name: load_evaluation(split, notes) for split in folders(folder / "eval")}
    if not evaluations:
        notes.append("no evaluation yet: eval/<data>-<split>/ is missing")
    if provenance and not provenance.get("finished"):
        notes.append("the run has not finished: provenance.json gives no time of its end")
    if provenance.get("earlier") and "train_cpu_seconds" not in provenance:  # recorded since all parts are counted
        notes.append("it was stopped and continued: its training time is that of the last part alone")
    name = arm or str(provenance.get("arm") or folder.resolve().name)
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
    evaluations = {split.name: load_evaluation(split, notes) for split in folders(folder / "eval")}
    seed = _seed(folder, {})
    return Run(arm or folder.resolve().name, seed, folder, {}, {}, (), evaluations, _hashes(folder), tuple(notes))


def _hashes(folder: Path) -> dict[str, str]:
    """The first 16 digits of the SHA-256 of the configuration and of every split's predictions."""
    hashes = {}
    for path in [folder / "config.yaml", *sorted(folder.glob("eval/*/predictions.jsonl"))]:
        if path.is_file():
            with path.open("rb") as file:
                hashes[f"sha256 of {place(path)}"] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return hashes


def _seed(folder: Path, provenance: Mapping[str, Any]) -> int | None:
    match = SEED_FOLDER.fullmatch(folder.name)
    if match:
        return int(match[1])
    seed = provenance.get("seed")
    return seed if isinstance(seed, int) else None
