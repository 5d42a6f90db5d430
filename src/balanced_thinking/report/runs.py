"""Run directories as plain values: what every run says about itself, and its predictions counted while they stream by.

Any file of a run may be missing or cut short, as in a run that is still going: what is missing becomes a note, never a
failure.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.progress import track

from balanced_thinking.report.failures import group_of, known_format
from balanced_thinking.report.places import SEED_FOLDER, TRAINING_FILES, find_runs, folders, nothing_found


@dataclass
class Tally:
    """Counts of items."""

    n: int = 0
    correct: int = 0

    def add(self, correct: bool) -> None:
        self.n += 1
        self.correct += correct


@dataclass
class Evaluation:
    """One run's predictions on one split: counts and the verdict of every item, not the texts.

    `split` is the folder's name, `<data>-<split>`. The means are in tokens. `pictured` are the items whose picture was
    kept beside the predictions, `flawed` the malformed ones, `groups` counts of `failures.GROUPS`, `digests` what tells
    an item from another of the same id, where the predictions give it. Without predictions there are only counts, from
    the summary, and no groups.
    """

    split: str
    folder: Path
    summary: Mapping[str, Any]
    total: Tally = field(default_factory=Tally)
    malformed: int = 0
    truncated: int = 0
    think_tokens_mean: float | None = None
    answer_tokens_mean: float | None = None
    correct: dict[str, bool] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    pictured: set[str] = field(default_factory=set)
    flawed: set[str] = field(default_factory=set)
    groups: Counter[str] = field(default_factory=Counter)
    families: dict[str, Tally] = field(default_factory=dict)

    @property
    def data(self) -> str | None:
        """What was evaluated, as the summary names it; ids tell items apart within one data set only."""
        named = self.summary.get("data")
        return None if named is None else str(named)

    @property
    def asked(self) -> str:
        """The pair of prompt and scorer; runs of before there were prompts were asked the question alone."""
        scorer = self.summary.get("scorer")
        return f"prompt {self.summary.get('prompt', 'question')}, scorer {scorer}" if scorer else ""

    @property
    def manner(self) -> dict[str, str]:
        """How it was asked and judged, as far as its summary says so: `{"scorer": "scorer exact", ...}`."""
        said = {name: self.summary.get(name) for name in ("prompt", "scorer", "engine", "max_new_tokens")}
        if said["scorer"]:
            said["prompt"] = said["prompt"] or "question"
        return {name: f"{name} {value}" for name, value in said.items() if value}

    def same_items(self, other: Evaluation) -> bool:
        """Whether an id stands for the same item in both, as far as both say so."""
        data = {self.data, other.data} - {None}
        return len(data) < 2 and not self.other_items(other)

    def other_items(self, other: Evaluation) -> int:
        """How many ids are known to stand for another item there."""
        return sum(other.digests.get(item, digest) != digest for item, digest in self.digests.items())

    def asked_alike(self, other: Evaluation) -> bool:
        """Whether both were asked and judged in the same manner, as far as both say so."""
        return all(other.manner.get(name, value) == value for name, value in self.manner.items())


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


def number(value: object) -> float | None:
    """The value as a float, or None when it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= sys.float_info.max else None  # JSON has whole numbers of any size


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
    provenance = _read_mapping(folder / "provenance.json", notes)
    trained = not (provenance.get("finished") and not provenance.get("train_seconds"))
    config = _read_mapping(folder / "config.yaml", notes)
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


def load_evaluation(folder: Path, notes: list[str]) -> Evaluation:
    """Counts of one split, from its predictions when there are any, else from its summary."""
    evaluation = Evaluation(folder.name, folder, _read_mapping(folder / "summary.json", notes))
    think_tokens = answer_tokens = 0.0
    for row in predictions(folder, notes):
        _count(evaluation, row)
        think_tokens += number(row.get("think_tokens")) or 0
        answer_tokens += number(row.get("answer_tokens")) or 0
    n = evaluation.total.n
    if n == 0:
        if (folder / "predictions.jsonl").is_file() and evaluation.summary.get("n"):
            notes.append(f"{_place(folder)}: no prediction can be used; this page counts what summary.json says")
        return _from_summary(evaluation)
    evaluation.think_tokens_mean, evaluation.answer_tokens_mean = think_tokens / n, answer_tokens / n
    notes += _disagreements(evaluation)
    return evaluation


def predictions(folder: Path, notes: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of a split that name an item and say whether it was answered correctly."""
    unusable = 0
    for row in read_lines(folder / "predictions.jsonl", notes):
        if "id" in row and isinstance(row.get("correct"), bool):
            yield row
        else:
            unusable += 1
    if unusable:
        notes.append(f"{_place(folder)}/predictions.jsonl: {unusable} rows lack an id or a verdict and are not counted")


def read_lines(path: Path, notes: list[str], *, required: bool = True) -> Iterator[dict[str, Any]]:
    """The objects of a JSON Lines file, one at a time. A line cut short by an interruption is told and skipped."""
    if not path.is_file():
        if required:
            notes.append(f"{_place(path)} is missing")
        return
    damaged = 0
    with path.open("rb") as lines:
        for line in filter(bytes.strip, lines):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if isinstance(row, dict):
                yield row
            else:
                damaged += 1
    if damaged:
        notes.append(f"{_place(path)}: {damaged} lines are not JSON objects and are left out")


def _count(evaluation: Evaluation, row: Mapping[str, Any]) -> None:
    correct = row["correct"]
    evaluation.total.add(correct)
    evaluation.correct[str(row["id"])] = correct
    if row.get("digest"):
        evaluation.digests[str(row["id"])] = str(row["digest"])
    if row.get("images"):
        evaluation.pictured.add(str(row["id"]))
    if row.get("malformed"):
        evaluation.malformed += 1
        evaluation.flawed.add(str(row["id"]))
    evaluation.truncated += bool(row.get("truncated"))
    evaluation.groups[group_of(row, known_format(evaluation.summary.get("format")))] += 1
    if row.get("family") is not None:
        evaluation.families.setdefault(str(row["family"]), Tally()).add(correct)


def _from_summary(evaluation: Evaluation) -> Evaluation:
    counts = {key: int(number(evaluation.summary.get(key)) or 0) for key in ("n", "correct", "malformed", "truncated")}
    evaluation.total = Tally(counts["n"], min(counts["correct"], counts["n"]))
    evaluation.malformed, evaluation.truncated = counts["malformed"], counts["truncated"]
    evaluation.think_tokens_mean = number(evaluation.summary.get("think_tokens_mean"))
    evaluation.answer_tokens_mean = number(evaluation.summary.get("answer_tokens_mean"))
    return evaluation


def _disagreements(evaluation: Evaluation) -> Iterator[str]:
    """Notes on a summary that contradicts its own rows, and on items that occur twice."""
    total, place = evaluation.total, _place(evaluation.folder)
    claimed = [evaluation.summary.get(key, ours) for key, ours in (("n", total.n), ("correct", total.correct))]
    if claimed != [total.n, total.correct]:
        yield (
            f"{place}: summary.json says {claimed[1]} of {claimed[0]} correct, predictions.jsonl "
            f"{total.correct} of {total.n}; this page counts the predictions"
        )
    if len(evaluation.correct) < total.n:
        yield f"{place}: {total.n - len(evaluation.correct)} rows repeat an id; paired tests use the last of each"


def _read_mapping(path: Path, notes: list[str]) -> Mapping[str, Any]:
    """A JSON or YAML file that holds one mapping; empty, with a note, when it is missing or damaged."""
    if not path.is_file():
        notes.append(f"{_place(path)} is missing")
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        notes.append(f"{_place(path)} cannot be read ({type(error).__name__})")
        return {}
    if not isinstance(value, dict):
        notes.append(f"{_place(path)} holds {type(value).__name__}, a mapping was expected")
        return {}
    return value


def _hashes(folder: Path) -> dict[str, str]:
    """The first 16 digits of the SHA-256 of the configuration and of every split's predictions."""
    hashes = {}
    for path in [folder / "config.yaml", *sorted(folder.glob("eval/*/predictions.jsonl"))]:
        if path.is_file():
            with path.open("rb") as file:
                hashes[f"sha256 of {_place(path)}"] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return hashes


def _place(path: Path) -> str:
    """The path as seen from its run: `metrics.jsonl`, `eval/world-test/summary.json`."""
    parts = path.parts[-3:]
    return "/".join(parts[parts.index("eval") :]) if "eval" in parts else path.name


def _seed(folder: Path, provenance: Mapping[str, Any]) -> int | None:
    match = SEED_FOLDER.fullmatch(folder.name)
    if match:
        return int(match[1])
    seed = provenance.get("seed")
    return seed if isinstance(seed, int) else None
