"""The files of a run as typed records."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Prediction:
    """One scored sample: `score` from 0 to 1, `correct` where it is 1. `think_tokens` and `answer_tokens` count the
    tokens that were generated, tags included. `digest` tells the item, as it was asked, from another of the same id.

    An answer that was cut off is kept as `prediction`, but is never correct: of 12, only the 1 may be there.
    """

    id: str
    question: str
    gold: str
    prediction: str | None
    correct: bool
    problems: list[str]
    malformed: bool
    truncated: bool
    think_tokens: int
    answer_tokens: int
    completion: str
    family: str | None = None
    choices: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    score: float = 0.0
    digest: str = ""


@dataclass(frozen=True)
class Summary:
    """A split's result. `malformed` counts outputs without an answer that can be extracted, `truncated` those cut
    off, `dropped` bad rows of the data that were left out (and are not among `n`); `score` is their mean. `items` tells
    the items, as they were asked, from others: their questions, options, answers and pictures. Seconds are
    those of all tries of an evaluation that was stopped, but for the batch that a stop cut short; of the CPU, one
    rank's."""

    data: str
    split: str
    n: int
    correct: int
    accuracy: float
    wilson_low: float
    wilson_high: float
    malformed: int
    truncated: int
    think_tokens_mean: float
    answer_tokens_mean: float
    scorer: str
    format: str
    wall_seconds: float
    model: str
    dropped: int = 0
    score: float = 0.0
    prompt: str = "question"
    dtype: str = ""  # of the weights
    cpu_seconds: float = 0.0
    engine: str = ""  # who generated, and up to how many tokens
    max_new_tokens: int | None = None
    items: str = ""
    task: str = ""  # tells results of the same evaluation from others
