"""A run's results on one split: counts, the verdict on every item, and the predictions while they stream by."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from balanced_thinking.runs.files import place, read_lines, read_mapping
from balanced_thinking.runs.outcomes import group_of, known_format
from balanced_thinking.runs.paths import EvaluationFiles
from balanced_thinking.runs.records import Prediction, RecordError, Summary, UnknownSchemaError, read_record


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
    summary: Summary | None
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
        return (self.summary.data or None) if self.summary else None

    @property
    def asked(self) -> str:
        """The pair of prompt and scorer; runs of before there were prompts were asked the question alone."""
        known = self.summary is not None and self.summary.scorer
        return f"prompt {self.summary.prompt}, scorer {self.summary.scorer}" if self.summary and known else ""

    @property
    def manner(self) -> dict[str, str]:
        """How it was asked and judged, as far as its summary says so: `{"scorer": "scorer exact", ...}`."""
        said = {name: getattr(self.summary, name, None) for name in ("prompt", "scorer", "engine", "max_new_tokens")}
        if not said["scorer"]:  # a prompt is half of a pair
            del said["prompt"]
        return {name: f"{name} {value}" for name, value in said.items() if value}

    @property
    def reasoning_format(self) -> str:
        """The built-in format that its outputs are parsed with; `auto` where the run had one of its own."""
        return known_format(self.summary.format if self.summary else None)

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


def load_evaluation(folder: Path, notes: list[str]) -> Evaluation:
    """Counts of one split, from its predictions when there are any, else from its summary."""
    evaluation = Evaluation(folder.name, folder, _read_summary(folder, notes))
    think_tokens = answer_tokens = 0
    for row in predictions(folder, notes):
        _count(evaluation, row)
        think_tokens += row.think_tokens
        answer_tokens += row.answer_tokens
    n = evaluation.total.n
    if n == 0:
        if EvaluationFiles(folder).predictions.is_file() and evaluation.summary and evaluation.summary.n:
            notes.append(f"{place(folder)}: no prediction can be used; this page counts what summary.json says")
        return _from_summary(evaluation)
    evaluation.think_tokens_mean, evaluation.answer_tokens_mean = think_tokens / n, answer_tokens / n
    notes += _disagreements(evaluation)
    return evaluation


def predictions(folder: Path, notes: list[str]) -> Iterator[Prediction]:
    """The rows of a split. Those that cannot be read are counted in `notes`. Raises UnknownSchemaError."""
    path, unusable = EvaluationFiles(folder).predictions, 0
    for row in read_lines(path, notes):
        try:
            yield read_record(Prediction, row, str(path))
        except UnknownSchemaError:
            raise
        except RecordError:
            unusable += 1
    if unusable:
        notes.append(f"{place(path)}: {unusable} rows lack an id or a verdict and are not counted")


def read_summary(files: EvaluationFiles) -> Summary:
    """The result in a folder. Raises FileNotFoundError without one, RecordError for one that cannot be read."""
    return read_record(Summary, json.loads(files.summary.read_text(encoding="utf-8")), str(files.summary))


def _read_summary(folder: Path, notes: list[str]) -> Summary | None:
    path = EvaluationFiles(folder).summary
    values = read_mapping(path, notes)
    try:
        return read_record(Summary, values, place(path)) if values else None
    except UnknownSchemaError:
        raise
    except RecordError as error:
        notes.append(f"{error}: it is not used")
        return None


def _count(evaluation: Evaluation, row: Prediction) -> None:
    evaluation.total.add(row.correct)
    evaluation.correct[row.id] = row.correct
    if row.digest:
        evaluation.digests[row.id] = row.digest
    if row.images:
        evaluation.pictured.add(row.id)
    if row.malformed:
        evaluation.malformed += 1
        evaluation.flawed.add(row.id)
    evaluation.truncated += row.truncated
    evaluation.groups[group_of(row, evaluation.reasoning_format)] += 1
    if row.family is not None:
        evaluation.families.setdefault(row.family, Tally()).add(row.correct)


def _from_summary(evaluation: Evaluation) -> Evaluation:
    if (summary := evaluation.summary) is None:
        return evaluation
    evaluation.total = Tally(summary.n, summary.correct)
    evaluation.malformed, evaluation.truncated = summary.malformed, summary.truncated
    evaluation.think_tokens_mean = summary.think_tokens_mean
    evaluation.answer_tokens_mean = summary.answer_tokens_mean
    return evaluation


def _disagreements(evaluation: Evaluation) -> Iterator[str]:
    """Notes on a summary that contradicts its own rows, and on items that occur twice."""
    total, where = evaluation.total, place(evaluation.folder)
    summary = evaluation.summary
    if summary is not None and (summary.n, summary.correct) != (total.n, total.correct):
        yield (
            f"{where}: summary.json says {summary.correct} of {summary.n} correct, predictions.jsonl "
            f"{total.correct} of {total.n}; this page counts the predictions"
        )
    if len(evaluation.correct) < total.n:
        yield f"{where}: {total.n - len(evaluation.correct)} rows repeat an id; paired tests use the last of each"
