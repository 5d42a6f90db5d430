"""A run's results on one split: counts and the verdict on every item. Predictions are read one at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from balanced_thinking.runs.files import note_problem, number_json_lines, path_in_run, read_foreign_file, read_mapping
from balanced_thinking.runs.outcomes import builtin_format_or_auto, classify_outcome
from balanced_thinking.runs.paths import EvaluationFiles
from balanced_thinking.runs.records import Prediction, RecordError, Summary, UnknownSchemaError, read_record

MOST_ROWS = 1_000_000  # of one split: their ids and verdicts are in memory


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
    """One run's predictions on one split: counts and the verdict on every item, not the texts.

    `split` is the folder's name, `<data>-<split>`. The means are in tokens. `pictured` are the items whose picture is
    beside the predictions, `flawed` the malformed ones, `cut_off` the truncated ones. `groups` counts
    `outcomes.GROUPS`. `withheld` counts outputs that a server did not give, by its reason. `digests` distinguish items
    with the same id, where the predictions have them. Without predictions there are only the counts of the summary.
    `is_outdated`: the run's model was trained further since.
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
    cut_off: set[str] = field(default_factory=set)
    groups: Counter[str] = field(default_factory=Counter)
    withheld: Counter[str] = field(default_factory=Counter)
    families: dict[str, Tally] = field(default_factory=dict)
    is_outdated: bool = False

    @property
    def data_name(self) -> str | None:
        """The data set, as the summary names it. Ids are unique within one data set only."""
        return (self.summary.data or None) if self.summary else None

    @property
    def asked(self) -> str:
        """Prompt, scorer, what is not greedy or not in float32, and training rows. Old runs name none of them."""
        if self.summary is None or not self.summary.scorer:
            return ""
        about = [f"prompt {self.summary.prompt}", f"scorer {self.summary.scorer}"]
        if self.summary.sampling != "greedy":
            about.append(self.summary.sampling)
        if self.summary.dtype not in {"", "float32"}:
            about.append(f"weights in {self.summary.dtype}")
        if self.is_outdated:
            about.append("of an earlier state of the model")
        return ", ".join(about) + self.training_rows

    @property
    def training_rows(self) -> str:
        """How many items are rows of the training, for a list; empty where none is known to be one."""
        count = self.summary.trained_on if self.summary else 0
        return f", {count:,} of {self.total.n:,} items are training rows" if count else ""

    @property
    def protocol(self) -> dict[str, str]:
        """How answers were generated and scored, where the summary says it: `{"scorer": "scorer exact", ...}`."""
        names = ("prompt", "scorer", "engine", "dtype", "max_new_tokens", "sampling")
        recorded = {name: getattr(self.summary, name, None) for name in names}
        if not recorded["scorer"]:  # prompt and scorer are recorded together
            del recorded["prompt"]
        if self.summary is not None and (own := self.summary.scorer_file.get("sha256")):
            recorded["scorer"] = f"{recorded['scorer']} of the file {str(own)[:12]}"  # an edited scorer is another one
        return {name: f"{name} {value}" for name, value in recorded.items() if value}

    @property
    def reasoning_format(self) -> str:
        """The built-in format that parses its outputs; `auto` where the run had a format of its own."""
        return builtin_format_or_auto(self.summary.format if self.summary else None)

    def has_no_conflicting_ids(self, other: Evaluation) -> bool:
        """Whether an id names the same item in both. What one of them does not record counts as the same."""
        names = {self.data_name, other.data_name} - {None}
        return len(names) < 2 and not self.count_conflicting_ids(other)

    def count_conflicting_ids(self, other: Evaluation) -> int:
        """How many ids are known to name another item in `other`."""
        return sum(other.digests.get(item, digest) != digest for item, digest in self.digests.items())

    def agrees_on_protocol(self, other: Evaluation) -> bool:
        """Whether both have the same protocol. What one of them does not record counts as the same."""
        return all(other.protocol.get(name, value) == value for name, value in self.protocol.items())


def load_evaluation(folder: Path, notes: list[str]) -> Evaluation:
    """Counts of one split, from its predictions, or from its summary where there are none."""
    evaluation = Evaluation(folder.name, folder, _read_summary_or_note(folder, notes))
    think_tokens = answer_tokens = 0
    for row in read_predictions(folder, notes):
        _count_prediction(evaluation, row)
        think_tokens += row.think_tokens
        answer_tokens += row.answer_tokens
    n = evaluation.total.n
    if n == 0:
        if EvaluationFiles(folder).predictions.is_file() and evaluation.summary and evaluation.summary.n:
            notes.append(f"{path_in_run(folder)}: no usable prediction; the report uses the counts of summary.json")
        return _count_from_summary(evaluation)
    evaluation.think_tokens_mean, evaluation.answer_tokens_mean = think_tokens / n, answer_tokens / n
    notes += _describe_contradictions(evaluation)
    return evaluation


def read_predictions(folder: Path, notes: list[str]) -> Iterator[Prediction]:
    """The rows of a split, at most `MOST_ROWS`. Those that cannot be read are named in `notes`."""
    path = EvaluationFiles(folder).predictions
    unusable: list[int] = []
    for read, (number, row) in enumerate(number_json_lines(path, notes)):
        if read >= MOST_ROWS:
            note_problem(notes, f"{path_in_run(path)}: the rows from line {number} on are more than {MOST_ROWS:,}")
            break
        try:
            yield read_record(Prediction, row, str(path))
        except RecordError:
            unusable.append(number)
    if unusable:
        what = "rows without an id or a verdict are not counted"
        note_problem(notes, f"{path_in_run(path)}: {len(unusable)} {what} (first: line {unusable[0]})")


def read_summary(files: EvaluationFiles) -> Summary:
    """The result in a folder. Raises FileNotFoundError without one, RecordError for one that cannot be read."""
    try:
        values = read_foreign_file(files.summary)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{files.summary} cannot be read ({error}); evaluate again with --overwrite") from error
    if not isinstance(values, dict):
        raise RecordError(f"{files.summary} holds {type(values).__name__}; expected a mapping")
    return read_record(Summary, values, str(files.summary))


def _read_summary_or_note(folder: Path, notes: list[str]) -> Summary | None:
    path = EvaluationFiles(folder).summary
    values = read_mapping(path, notes)
    try:
        return read_record(Summary, values, path_in_run(path)) if values else None
    except UnknownSchemaError:
        raise
    except RecordError as error:
        note_problem(notes, f"{error}: it is not used")
        return None


def _count_prediction(evaluation: Evaluation, row: Prediction) -> None:
    evaluation.total.add(row.correct)
    evaluation.correct[row.id] = row.correct
    if row.digest:
        evaluation.digests[row.id] = row.digest
    if row.images:
        evaluation.pictured.add(row.id)
    evaluation.malformed += row.malformed
    evaluation.truncated += row.truncated
    if row.withheld:
        evaluation.withheld[row.withheld] += 1
    for items, belongs in ((evaluation.flawed, row.malformed), (evaluation.cut_off, row.truncated)):
        (items.add if belongs else items.discard)(row.id)  # of an id that occurs twice, the last row counts
    evaluation.groups[classify_outcome(row, evaluation.reasoning_format)] += 1
    if row.family is not None:
        evaluation.families.setdefault(row.family, Tally()).add(row.correct)


def _count_from_summary(evaluation: Evaluation) -> Evaluation:
    if (summary := evaluation.summary) is None:
        return evaluation
    evaluation.total = Tally(summary.n, summary.correct)
    evaluation.malformed, evaluation.truncated = summary.malformed, summary.truncated
    evaluation.withheld = Counter(summary.withheld)
    evaluation.think_tokens_mean = summary.think_tokens_mean
    evaluation.answer_tokens_mean = summary.answer_tokens_mean
    return evaluation


def _describe_contradictions(evaluation: Evaluation) -> Iterator[str]:
    """Notes on a summary that contradicts its predictions, and on items that occur twice."""
    total, where = evaluation.total, path_in_run(evaluation.folder)
    summary = evaluation.summary
    if summary is not None and (summary.n, summary.correct) != (total.n, total.correct):
        yield (
            f"{where}: summary.json says {summary.correct} of {summary.n} correct, predictions.jsonl "
            f"{total.correct} of {total.n}; the report counts the predictions"
        )
    if len(evaluation.correct) < total.n:
        yield f"{where}: {total.n - len(evaluation.correct)} rows repeat an id; paired tests use the last row of each"
