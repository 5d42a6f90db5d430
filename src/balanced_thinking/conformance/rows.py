"""The user's own rows: which of them training would refuse, and how long the others are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from balanced_thinking.conformance.subject import Subject
from balanced_thinking.conformance.table import PropertyError, SkippedError
from balanced_thinking.data.bad_rows import PROBLEMS
from balanced_thinking.data.load import stream_data
from balanced_thinking.training.example_check import check_with_model
from balanced_thinking.training.sft_config import ScaleSFTConfig

_SHOWN = 3  # problems in a message


@dataclass(frozen=True)
class UserData:
    """The data to look at: the first `limit` rows of a split, with options of the data set."""

    name: str
    split: str = "train"
    limit: int = 64
    options: Mapping[str, Any] = field(default_factory=dict)


def check_rows(subject: Subject, data: UserData | None) -> str:
    """The rows are read and checked as before the first step of a training with its default `max_length`."""
    if data is None:
        raise SkippedError("no --data was named")
    stream = stream_data(data.name, split=data.split, on_bad_row="drop", limit=data.limit, options=data.options)
    checked = check_with_model(list(stream), subject.format, subject.processor, ScaleSFTConfig.max_length)
    bad_rows = [*stream.bad_rows, *checked.bad_rows]
    total = len(checked.examples) + len(bad_rows)
    if bad_rows:
        counts = Counter(bad.problems[0] for bad in bad_rows).most_common(_SHOWN)
        named = "; ".join(f"{count} {name} ({PROBLEMS[name]})" for name, count in counts)
        raise PropertyError(f"{len(bad_rows)} of the first {total} rows are refused: {named}")
    if not total:
        raise PropertyError(f"{data.name}, split {data.split}, has no rows")
    lengths = checked.tokens
    return f"{total} rows of {min(lengths)} to {max(lengths)} tokens, median {median(lengths):.0f}"
