"""A run's results on one split: counts, the verdict on every item, and the predictions while they stream by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from balanced_thinking.runs.files import number, place, read_lines, read_mapping
from balanced_thinking.runs.outcomes import group_of, known_format


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


def load_evaluation(folder: Path, notes: list[str]) -> Evaluation:
    """Counts of one split, from its predictions when there are any, else from its summary."""
    evaluation = Evaluation(folder.name, folder, read_mapping(folder / "summary.json", notes))
    think_tokens = answer_tokens = 0.0
    for row in predictions(folder, notes):
        _count(evaluation, row)
        think_tokens += number(row.get("think_tokens")) or 0
        answer_tokens += number(row.get("answer_tokens")) or 0
    n = evaluation.total.n
    if n == 0:
        if (folder / "predictions.jsonl").is_file() and evaluation.summary.get("n"):
            notes.append(f"{place(folder)}: no prediction can be used; this page counts what summary.json says")
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
        notes.append(f"{place(folder)}/predictions.jsonl: {unusable} rows lack an id or a verdict and are not counted")


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
    names = ("n", "correct", "malformed", "truncated")
    counts = {name: max(0, int(number(evaluation.summary.get(name)) or 0)) for name in names}
    evaluation.total = Tally(counts["n"], min(counts["correct"], counts["n"]))
    evaluation.malformed, evaluation.truncated = counts["malformed"], counts["truncated"]
    evaluation.think_tokens_mean = number(evaluation.summary.get("think_tokens_mean"))
    evaluation.answer_tokens_mean = number(evaluation.summary.get("answer_tokens_mean"))
    return evaluation


def _disagreements(evaluation: Evaluation) -> Iterator[str]:
    """Notes on a summary that contradicts its own rows, and on items that occur twice."""
    total, where = evaluation.total, place(evaluation.folder)
    claimed = [evaluation.summary.get(key, ours) for key, ours in (("n", total.n), ("correct", total.correct))]
    if claimed != [total.n, total.correct]:
        yield (
            f"{where}: summary.json says {claimed[1]} of {claimed[0]} correct, predictions.jsonl "
            f"{total.correct} of {total.n}; this page counts the predictions"
        )
    if len(evaluation.correct) < total.n:
        yield f"{where}: {total.n - len(evaluation.correct)} rows repeat an id; paired tests use the last of each"
