"""What is in the files of a run, as typed records: the same class writes and reads.

Every file that is one record has a `schema`. A file without one was written before there were numbers and is read as
schema 1. `summary.json` states the schema of the predictions beside it, `provenance.json` that of `metrics.jsonl`.
A new optional field needs no new number; a field that is renamed, or changes its meaning, does.
"""

from __future__ import annotations

import json
import reprlib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import cache
from typing import Any, NamedTuple, TypeVar

from balanced_thinking.config.errors import BalancedThinkingError

SCHEMA = 2
_KNOWN = (1, SCHEMA)  # 1: the same fields, without a number
_LARGEST = 2**63  # JSON has integers of any size
_LONGEST_NAME = 10_000  # characters of an id, which is in memory for every item
BASELINE_ARM = "sft"  # in reports it is plain SFT
Record = TypeVar("Record")


class RecordError(BalancedThinkingError, ValueError):
    """A record that lacks a field, or has one of another type; the message names the file and the field."""


class UnknownSchemaError(RecordError):
    """A file that a newer version of this package wrote."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One scored sample: `score` from 0 to 1, `correct` where it is 1.

    `think_tokens` and `answer_tokens` count the tokens that were generated, tags included. `digest` identifies the item
    as it was asked: two items of one id may differ. An answer that was cut off is kept as `prediction` but is never
    correct: of 12, only the 1 may be there. `withheld` is why a server gave no complete answer, such as
    `content_filter`; such an item is not `truncated`.
    """

    id: str
    question: str = ""
    gold: str = ""
    prediction: str | None = None
    correct: bool
    problems: list[str] = field(default_factory=list)
    malformed: bool = False
    truncated: bool = False
    think_tokens: int = 0
    answer_tokens: int = 0
    completion: str = ""
    family: str | None = None
    choices: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    score: float = 0.0
    digest: str = ""
    withheld: str = ""

    def __post_init__(self) -> None:
        for name in ("problems", "choices", "images"):
            if not all(isinstance(one, str) for one in getattr(self, name)):
                raise RecordError(f"{name} holds something else than texts")
        if max(map(len, (self.id, self.digest, self.withheld, self.family or ""))) > _LONGEST_NAME:
            raise RecordError(f"id, digest, family or withheld has more than {_LONGEST_NAME:,} characters")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The result on one split.

    n: scored items. malformed: outputs without an answer that can be extracted. truncated: outputs that were cut off.
    withheld: outputs that a server did not finish for another reason, counted by it: `{"content_filter": 2}`.
    dropped: bad rows of the data, which are not among `n`. trained_on: items that are rows of the training. score: the
    mean; files from before there were graded scorers have none. dtype: of the weights. items: identifies the questions,
    options, answers and pictures as they were asked. picture_budget: the image processor's settings about sizes, where
    the items have pictures and it is known. reduced_batch_size: examples of a batch, where memory did not suffice for
    the one that was asked for. scorer_file: of a scorer of the user's own, the file and its SHA-256. task: identifies
    the whole evaluation. Seconds include all tries of an evaluation that was stopped, except the batch that the stop
    interrupted; CPU seconds are one rank's. predictions: the samples, in memory only.
    """

    schema: int = SCHEMA
    data: str = ""
    split: str = ""
    n: int
    correct: int
    accuracy: float = 0.0
    wilson_low: float = 0.0
    wilson_high: float = 0.0
    malformed: int = 0
    truncated: int = 0
    think_tokens_mean: float = 0.0
    answer_tokens_mean: float = 0.0
    scorer: str = ""
    format: str = ""
    wall_seconds: float = 0.0
    model: str = ""
    dropped: int = 0
    trained_on: int = 0
    score: float | None = None
    prompt: str = "question"
    dtype: str = ""
    cpu_seconds: float = 0.0
    engine: str = ""
    max_new_tokens: int | None = None
    items: str = ""
    picture_budget: dict[str, Any] = field(default_factory=dict)
    task: str = ""
    scorer_file: dict[str, Any] = field(default_factory=dict)
    reduced_batch_size: int | None = None
    withheld: dict[str, Any] = field(default_factory=dict)
    sampling: str = "greedy"
    served_model: str = ""
    model_digest: str = ""
    predictions: tuple[Prediction, ...] = field(default=(), repr=False, compare=False, metadata={"stored": False})

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.n:
            raise RecordError(f"n is {self.n} and correct {self.correct}; expected 0 <= correct <= n")
        if not (0 <= self.malformed <= self.n and 0 <= self.truncated <= self.n):
            raise RecordError(f"malformed is {self.malformed} and truncated {self.truncated}; expected 0 to n")
        if not all(type(count) is int and 0 <= count <= self.n for count in self.withheld.values()):
            raise RecordError(f"withheld is {reprlib.repr(self.withheld)}; expected counts of 0 to n")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How a run came about. The last six fields, and `finished`, are known once it is complete."""

    schema: int = SCHEMA
    arm: str | None = None
    stage: str | None = None
    seed: int | None = None
    model: str | None = None
    data: str | None = None
    device: str | None = None
    dtype: str | None = None
    examples: int | None = None
    dropped: int | None = None
    validation_dropped: int | None = None
    command: str | None = None
    working_folder: str | None = None  # where it was started, from its own folder, so that both can move together
    commit: str | None = None
    python: str | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    started: str | None = None
    finished: str | None = None
    earlier: list[dict[str, Any]] = field(default_factory=list)  # starts before a resume, oldest first
    train_seconds: float | None = None
    train_cpu_seconds: float | None = None
    steps: int | None = None
    tokens: int | None = None
    peak_mib: float | None = None
    own_functions: dict[str, Any] = field(default_factory=dict)  # rewards and scorers of the user's: file and SHA-256
    stopped_early: bool | None = None  # by early_stopping_patience
    mixed_precision: str | None = None  # no, bf16 or fp16, whoever has asked for it
    skipped_updates: int | None = None  # those that were not finite, with on_nonfinite skip


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """A finished part of a study's run: `train`, or the label of an evaluation. Seconds are those of all its tries."""

    schema: int = SCHEMA
    run: str
    part: str
    started: str | None = None
    steps: int | None = None
    tokens: float | None = None
    device: str | None = None
    wall_seconds: float | None = None
    cpu_seconds: float | None = None
    gpu_seconds: float | None = None
    peak_mib: float | None = None


class MetricsRow(NamedTuple):
    """What was logged at an optimizer step. `values` are the trainer's own names, `warnings` keys of
    `advice.TRAINING_WARNINGS`."""

    step: int
    values: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    def to_json(self) -> str:
        warnings = {"warnings": list(self.warnings)} if self.warnings else {}
        return json.dumps({"step": self.step, **self.values, **warnings})


def read_metrics_row(values: Mapping[str, Any], where: str) -> MetricsRow:
    """Raises RecordError where it has no step."""
    step = values.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step < _LARGEST:
        raise RecordError(f"{where}: step is {reprlib.repr(step)}; expected an integer")
    logged = {name: value for name, value in values.items() if name not in ("step", "warnings")}
    warnings = values.get("warnings", [])
    known = warnings if isinstance(warnings, list) else []
    return MetricsRow(step, logged, tuple(name for name in known if isinstance(name, str)))


def record_values(record: Any, *, keep_empty: bool = True) -> dict[str, Any]:
    """The record's fields as JSON holds them; without `keep_empty`, those that are None are left out."""
    stored = {f.name for f in fields(record) if f.metadata.get("stored", True)}
    values = asdict(record)
    return {name: values[name] for name in values if name in stored and (keep_empty or values[name] is not None)}


def read_record(kind: type[Record], values: Mapping[str, Any], where: str) -> Record:
    """The record in a mapping. Fields of later versions are ignored as long as the schema is known.

    Raises UnknownSchemaError for a schema that this version does not know, and RecordError for a required field that is
    missing or a field of another type. `where` names the file.
    """
    if not isinstance(values, Mapping):
        raise RecordError(f"{where} holds {type(values).__name__}; expected a {kind.__name__}'s fields")
    check_schema(values, where)
    given: dict[str, Any] = {}
    for name, stored in _stored_fields(kind).items():  # type: ignore[arg-type]
        if name not in values:
            if stored.required:
                raise RecordError(f"{where} has no {name}; expected a complete {kind.__name__}")
        elif not _matches_any_type(values[name], stored.kinds):
            expected = " or ".join(sorted(k.__name__ for k in stored.kinds))
            raise RecordError(f"{where}: {name} is {reprlib.repr(values[name])}; expected {expected}")
        elif name != "schema":
            given[name] = values[name]
    try:
        return kind(**given)
    except RecordError as error:
        raise RecordError(f"{where}: {error}") from None


def check_schema(values: Mapping[str, Any], where: str) -> None:
    """Raises UnknownSchemaError where the file is none that this version can read."""
    schema = values.get("schema", 1)
    if not isinstance(schema, int) or schema not in _KNOWN or isinstance(schema, bool):
        raise UnknownSchemaError(
            f"{where} has schema {reprlib.repr(schema)}; this version of balanced-thinking reads {_KNOWN[0]} to "
            f"{_KNOWN[-1]}: a newer version wrote it, so upgrade"
        )


class _Stored(NamedTuple):
    kinds: frozenset[type]
    required: bool


@cache
def _stored_fields(kind: type) -> dict[str, _Stored]:
    """The fields that a file holds, with the types that each admits."""
    hints = typing.get_type_hints(kind)
    return {
        f.name: _Stored(_types_in(hints[f.name]), f.default is MISSING and f.default_factory is MISSING)
        for f in fields(kind)
        if f.metadata.get("stored", True)
    }


def _types_in(hint: Any) -> frozenset[type]:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return frozenset(typing.get_origin(option) or option for option in options)


def _matches_any_type(value: Any, kinds: frozenset[type]) -> bool:
    if isinstance(value, bool):
        return bool in kinds
    if isinstance(value, int | float) and not abs(value) <= _LARGEST:
        return False
    return isinstance(value, tuple(kinds)) or (float in kinds and isinstance(value, int))
