"""Look at every row before the first step: what would stop the run, or would be trained on wrongly, is named here."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch.utils.data import DataLoader

from balanced_thinking.batch.row_check import CheckedRow, RowChecker
from balanced_thinking.data.bad_rows import BadRow
from balanced_thinking.data.checks import Problem
from balanced_thinking.system.process import usable_cores
from balanced_thinking.system.progress import count_progress

logger = logging.getLogger(__name__)
_CHUNK_ROWS = 64
_FEW_ROWS = 512  # not worth another process


@dataclass(frozen=True)
class Preflight:
    """What was found. Keys of `problems`, and `too_long`, are positions in the dataset.

    rows: of the dataset. looked_at: how many of them were checked. tokens: of each row, 0 where they were not counted;
    it is not stored. seconds: 0 where the result is that of an earlier check.
    """

    rows: int
    looked_at: int
    problems: Mapping[int, tuple[Problem, ...]] = field(default_factory=dict)
    too_long: tuple[int, ...] = ()
    seconds: float = 0.0
    tokens: tuple[int, ...] = ()

    def bad_rows(self, numbers: Sequence[int], ids: Sequence[str]) -> list[BadRow]:
        """The rows with problems, by their number and id in the data."""
        return [
            BadRow(numbers[i], tuple(dict.fromkeys(one.name for one in found)), found[0].text, ids[i])
            for i, found in sorted(self.problems.items())
        ]

    def summary(self) -> str:
        """One line: how much was looked at, and what was found."""
        every = "all" if self.looked_at == self.rows else f"{self.looked_at:,} of"
        counts = Counter(name for found in self.problems.values() for name in {one.name for one in found})
        named = [f"{name} {count}" for name, count in counts.most_common()]
        named += [f"too_long {len(self.too_long)} (left out by overflow)"] if self.too_long else []
        found = ", ".join(named) or "no problem"
        how = f"checked in {self.seconds:.1f} s" if self.seconds else "were checked before"
        return f"{every} {self.rows:,} rows {how}: {found}"

    def to_json(self) -> dict[str, Any]:
        problems = {str(index): [list(one) for one in found] for index, found in self.problems.items()}
        return asdict(self) | {"problems": problems, "tokens": ()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Preflight:
        """Raises KeyError, TypeError or ValueError for what `to_json` did not write."""
        problems = {int(i): tuple(Problem(*one) for one in found) for i, found in stored["problems"].items()}
        return cls(**{**stored, "problems": problems, "too_long": tuple(stored["too_long"]), "tokens": ()})


def check_rows(
    dataset: Any, checker: RowChecker, what: str, *, sample: int | None = None, workers: int | None = None
) -> Preflight:
    """Check the rows of a dataset, or a random `sample` of them, in as many processes as there are cores."""
    began = time.monotonic()
    chosen = list(range(len(dataset)))
    if sample is not None and sample < len(chosen):
        chosen = sorted(random.Random(0).sample(chosen, sample))
    problems: dict[int, tuple[Problem, ...]] = {}
    too_long, tokens = [], [0] * len(dataset)
    with count_progress(f"{what} checked", len(chosen)) as advance:
        for index, checked in _check_all(dataset, checker, chosen, usable_cores() if workers is None else workers):
            if checked.problems:
                problems[index] = checked.problems
            elif checked.too_long:
                too_long.append(index)
            tokens[index] = checked.tokens
            advance()
    seconds = max(0.01, round(time.monotonic() - began, 2))
    return Preflight(len(dataset), len(chosen), problems, tuple(too_long), seconds, tuple(tokens))


class _Chunks:
    """A dataset for torch's loader whose items are checked chunks of rows."""

    def __init__(self, dataset: Any, checker: RowChecker, chosen: Sequence[int]) -> None:
        self.dataset, self.checker = dataset, checker
        self.chunks = [chosen[start : start + _CHUNK_ROWS] for start in range(0, len(chosen), _CHUNK_ROWS)]

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, number: int) -> list[tuple[int, CheckedRow]]:
        chunk = self.chunks[number]
        columns = self.dataset[chunk]
        rows = ({name: values[k] for name, values in columns.items()} for k in range(len(chunk)))
        return [(index, self.checker.check_row(row)) for index, row in zip(chunk, rows, strict=True)]


def _check_all(
    dataset: Any, checker: RowChecker, chosen: Sequence[int], workers: int
) -> Iterator[tuple[int, CheckedRow]]:
    chunks = _Chunks(dataset, checker, chosen)
    alone = len(chosen) < _FEW_ROWS or workers < 2
    # torch's loader brings processes, their errors and their end; it only passes the lists on.
    for checked in DataLoader(chunks, batch_size=None, num_workers=0 if alone else workers, collate_fn=list):  # type: ignore[arg-type]
        yield from checked
