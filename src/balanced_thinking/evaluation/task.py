"""One evaluation: which examples are put to which model in which way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

from balanced_thinking.config.own_functions import is_own_name
from balanced_thinking.data.bad_rows import BadRow, BadRowsError, DataError
from balanced_thinking.data.checks import check_examples
from balanced_thinking.data.example import Example, Turn
from balanced_thinking.data.load import LoadedData, choose_read_format, load_data, stream_data
from balanced_thinking.evaluation.benchmarks import Benchmark
from balanced_thinking.evaluation.prompts import apply_prompt
from balanced_thinking.scoring.scorers import load_own_scorer
from balanced_thinking.segments import ReasoningFormat, get_format, render

NOTHING_TO_EVALUATE = "there is nothing to evaluate: the data holds no example; check --data, --split and --limit"
FormatName = str | Mapping[str, Any]  # of a built-in format, or the definition of another


@dataclass(frozen=True)
class Task:
    """One evaluation. `examples` are as the prompt puts them; `weights` distinguishes the model's weights from those of
    another time; `engine` is the name of what generates; `dropped` counts bad rows that were left out, and
    `trained_on` examples that the model was trained on; `picture_budget` is how large pictures become; `model_digest`
    is that of a run's saved model."""

    benchmark: Benchmark
    split: str
    examples: Sequence[Example]
    format: ReasoningFormat
    model: str
    weights: str = ""
    dtype: str = ""
    engine: str = ""
    dropped: int = 0
    trained_on: int = 0
    picture_budget: Mapping[str, Any] = field(default_factory=dict)
    model_digest: str = ""

    @property
    def data(self) -> str:
        """The data's name in results."""
        return self.benchmark.name

    @property
    def settings(self) -> dict[str, str]:
        """What a message can name where two evaluations differ, in the words of their options."""
        chosen = self.benchmark
        about = {"model": self.model, "data": self.data, "split": self.split, "prompt": chosen.prompt_name}
        about |= {"scorer": chosen.scorer, "format": self.format.name, "dtype": self.dtype, "engine": self.engine}
        about |= {"max_new_tokens": str(chosen.max_new_tokens), "sampling": str(chosen.sampling)}
        return about | {"number of items": str(len(self.examples))}

    @cached_property
    def scorer_file(self) -> dict[str, str]:
        """Of a scorer of the user's own, the file and its SHA-256; empty for the others."""
        name = self.benchmark.scorer
        return load_own_scorer(name).record() if is_own_name(name) else {}

    @cached_property
    def identity(self) -> str:
        """Equal for two evaluations that must give the same results: same examples, model, settings and version."""
        chosen, shape = self.benchmark, repr(self.format)
        how = [self.data, self.split, chosen.prompt, chosen.scorer, shape, chosen.max_new_tokens, self.dtype]
        sampled = "" if chosen.sampling.is_greedy else str(chosen.sampling)
        asked = [self.model, self.weights, *how, *filter(None, [self.scorer_file.get("sha256"), sampled])]
        return short_digest(json.dumps([asked, _examples_digest(self.examples), metadata.version("balanced-thinking")]))


def load_task_data(benchmark: Benchmark, split: str, format: FormatName) -> LoadedData:
    """The examples of one split as its prompt puts them; every picture was opened once. Raises as `load_data` does."""
    loaded, shape = _load_examples(benchmark, split, format), get_format(format)
    shots = _load_shots(benchmark, format) if benchmark.shots else []
    _refuse_shots_among(loaded.examples, shots, f"{benchmark.name}, split {split}")
    shots = [apply_prompt(shot, benchmark.prompt, shape) for shot in shots]
    asked = (apply_prompt(one, benchmark.prompt, shape) for one in loaded.examples)
    return LoadedData([put_shots_before(one, shots, shape) for one in asked], loaded.bad_rows)


def _load_shots(benchmark: Benchmark, format: FormatName) -> list[Example]:
    """The first good rows of the split `train`. Raises DataError for too few of them."""
    if not isinstance(benchmark.data, str):
        raise DataError("shots are rows of the split train, which a list of examples does not have; expected a name")
    rows = stream_data(
        benchmark.data,
        split="train",
        format=choose_read_format(format),
        on_bad_row="drop",
        written_as=format,
        options=benchmark.options,
    )
    shots = list(islice(rows, benchmark.shots))
    if len(shots) < benchmark.shots:
        raise DataError(f"{benchmark.name}, split train, has {len(shots)} good rows; expected {benchmark.shots} shots")
    return shots


def _refuse_shots_among(examples: Sequence[Example], shots: Sequence[Example], where: str) -> None:
    """Raises DataError where an item would be asked after its own answer."""
    for shot in shots:
        for example in examples:
            if shot.question == example.question and shot.images == example.images:
                raise DataError(
                    f"{where}: item {example.id} is also a row of the split train that would be put in front of it, "
                    "with its answer; expected splits without common rows (--data_options.hash_split makes some), or "
                    "leave shots out"
                )


def put_shots_before(example: Example, shots: Sequence[Example], format: ReasoningFormat) -> Example:
    """The example with other examples and their completions as the first turns of its conversation."""
    turns = [
        turn
        for shot in shots
        for turn in (
            *shot.history,
            Turn("user", shot.question, shot.image_places or (0,) * _count_own_pictures(shot)),
            Turn("assistant", render(shot.think, shot.answer, format)),
        )
    ]
    pictures = tuple(image for shot in shots for image in shot.images)
    return replace(example, images=(*pictures, *example.images), history=(*turns, *example.history))


def _count_own_pictures(example: Example) -> int:
    """Its pictures that are not in earlier turns."""
    return len(example.images) - sum(len(turn.image_places) for turn in example.history)


def _load_examples(benchmark: Benchmark, split: str, format: FormatName) -> LoadedData:
    if isinstance(benchmark.data, str):
        return load_data(
            benchmark.data,
            split=split,
            format=choose_read_format(format),
            limit=benchmark.limit,
            on_bad_row=benchmark.on_bad_row,
            verify_images=True,
            options=benchmark.options,
        )
    rows = list(check_examples(benchmark.data[: benchmark.limit], verify_images=True))
    bad_rows = tuple(row for row in rows if isinstance(row, BadRow))
    if bad_rows and benchmark.on_bad_row == "error":
        raise BadRowsError(benchmark.name, bad_rows)
    return LoadedData([row for row in rows if isinstance(row, Example)], bad_rows)


def item_digest(example: Example) -> str:
    """A digest of everything about an example that its score depends on; the same wherever its pictures are."""
    pictures = [_picture_identity(image.read_bytes() if isinstance(image, Path) else image) for image in example.images]
    return short_digest(repr((*_scored_texts(example), pictures)))


def _scored_texts(example: Example) -> tuple[object, ...]:
    """Its texts that a score depends on. What few examples have is left out of others, as in older digests."""
    also = (example.alternatives,) if example.alternatives else ()
    said = [(name, value) for name in ("system", "history", "image_places") if (value := getattr(example, name))]
    return (example.question, example.answer, example.choices, *also, *said)


def short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _examples_digest(examples: Sequence[Example]) -> str:
    """A digest of everything about the examples that their scores depend on; picture files by size and time."""
    digest = hashlib.sha256()
    for example in examples:
        pictures = [_picture_identity(image) for image in example.images]
        digest.update(repr((example.id, *_scored_texts(example), pictures)).encode())
    return digest.hexdigest()


def _picture_identity(image: Any) -> str:
    # Not `content_digest`: predictions keep these digests, and a report pairs old ones with new ones by them.
    if isinstance(image, Path):
        about = image.stat()
        return f"{image} {about.st_size} {about.st_mtime_ns}"
    data = image if isinstance(image, bytes) else getattr(image, "encoded", None) or image.tobytes()
    return hashlib.sha256(data).hexdigest()
