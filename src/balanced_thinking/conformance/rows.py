"""The user's own rows: which of them training would refuse, and how long the others are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.conformance.subject import Subject
from balanced_thinking.conformance.table import PropertyError, SkippedError
from balanced_thinking.data.bad_rows import PROBLEMS, RowError
from balanced_thinking.data.load import stream_data
from balanced_thinking.data.rows import to_dataset
from balanced_thinking.system.progress import track_progress

_SHOWN = 3  # problems in a message


@dataclass(frozen=True)
class UserData:
    """The data to look at: the first `limit` rows of a split, with options of the data set."""

    name: str
    split: str = "train"
    limit: int = 64
    options: Mapping[str, Any] = field(default_factory=dict)


def check_rows(subject: Subject, data: UserData | None) -> str:
    """The rows are read, rendered and collated as for training."""
    if data is None:
        raise SkippedError("no --data was named")
    stream = stream_data(
        data.name, split=data.split, on_bad_row="drop", limit=data.limit, verify_images=True, options=data.options
    )
    examples = list(stream)
    problems = Counter(name for bad in stream.bad_rows for name in bad.problems[:1])
    if not subject.sees and any(example.images for example in examples):
        raise PropertyError("the rows have pictures, but the model takes text only")
    collator, lengths = ScaleCollator(subject.processor, subject.format), []
    for row in track_progress(to_dataset(examples, subject.format) if examples else [], "rows collated"):
        try:
            lengths.append(collator([row])["input_ids"].shape[1])
        except RowError as error:
            problems[error.problem] += 1
    total = len(examples) + len(stream.bad_rows)
    if problems:
        named = [f"{count} {name} ({PROBLEMS[name]})" for name, count in problems.most_common(_SHOWN)]
        raise PropertyError(f"{problems.total()} of the first {total} rows are refused: {'; '.join(named)}")
    if not lengths:
        raise PropertyError(f"{data.name}, split {data.split}, has no rows")
    return f"{total} rows of {min(lengths)} to {max(lengths)} tokens, median {median(lengths):.0f}"
