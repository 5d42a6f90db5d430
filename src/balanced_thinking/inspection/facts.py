"""What an inspection finds, independent of how it is shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from balanced_thinking.data.bad_rows import BadRow, DataError
from balanced_thinking.data.checks import find_written_problems, to_bad_row
from balanced_thinking.data.example import Example, find_unread_texts
from balanced_thinking.data.images import image_size
from balanced_thinking.data.load import BenchmarkItems, LoadedData, load_data, load_test_items, stream_data
from balanced_thinking.data.mixture import DataNames, list_parts
from balanced_thinking.data.registry import resolve_data
from balanced_thinking.data.unread import find_unread_pictures
from balanced_thinking.inspection.conclusion import count_conclusions
from balanced_thinking.inspection.duplicates import (
    Duplicate,
    Fingerprint,
    find_leaks,
    find_repeats,
    fingerprint_example,
)
from balanced_thinking.inspection.kind import DataKind, LossMeasure, judge_kind
from balanced_thinking.inspection.lengths import choose_length_measure
from balanced_thinking.inspection.picture_advice import PictureOption, find_picture_option, find_plain_pictures
from balanced_thinking.models.processor_parts import tokenizer_of
from balanced_thinking.segments import get_format, render
from balanced_thinking.system.progress import track_progress
from balanced_thinking.training.example_check import check_with_model, has_chat_template


@dataclass(frozen=True)
class Sample:
    """A good row with its lengths. `total` counts prompt, pictures and completion; it needs the model's processor."""

    example: Example
    think: int
    answer: int
    total: int | None = None


@dataclass(frozen=True)
class Inspection:
    """A split's good rows with their lengths in `unit`, and everything that is wrong with the split."""

    data: str
    split: str
    format: str
    unit: str  # tokens, or words without a tokenizer
    samples: list[Sample]
    bad_rows: tuple[BadRow, ...] = ()
    repeats: list[Duplicate] = field(default_factory=list)  # samples that are twice in the split
    leaks: list[Duplicate] = field(default_factory=list)  # samples that are also in a benchmark
    shared_questions: list[Duplicate] = field(default_factory=list)  # a test item's question about another picture
    sizes: list[tuple[int, int]] = field(default_factory=list)  # (width, height) of every picture, in pixels
    benchmarks: tuple[str, ...] = ()  # each with what was compared
    totals: list[int] = field(default_factory=list)  # tokens of every complete sample, as far as counted, long or not
    plain_pictures: tuple[str, ...] = ()  # ids of samples with a picture of a single color, as far as looked at
    picture_option: PictureOption | None = None  # with which samples fit that are long because of their pictures
    unread_texts: dict[str, int] = field(default_factory=dict)  # name of a row's texts that nothing reads -> rows
    unread_pictures: dict[str, int] = field(default_factory=dict)  # the same for pictures
    names: tuple[str, ...] = ()  # of the data sets
    losses: LossMeasure | None = None  # what a model says of the tokens, if it was asked (`measure_losses`)

    @property
    def samples_with_reasoning(self) -> list[Sample]:
        """The samples that have reasoning."""
        return [sample for sample in self.samples if sample.example.think]

    @property
    def think_loss_share(self) -> float | None:
        """The share of plain SFT's loss that the reasoning gets; None without reasoning."""
        think, answer = (sum(getattr(s, name) for s in self.samples_with_reasoning) for name in ("think", "answer"))
        return think / (think + answer) if think + answer else None

    @property
    def length_ratios(self) -> list[float]:
        """For each sample with reasoning, the length of the reasoning divided by that of the answer."""
        return [sample.think / max(1, sample.answer) for sample in self.samples_with_reasoning]

    @cached_property
    def kind(self) -> DataKind | None:
        """What kind of data it is; None without reasoning."""
        if not self.samples_with_reasoning:
            return None
        conclusions = count_conclusions(sample.example for sample in self.samples)
        return judge_kind(conclusions, median(self.length_ratios), self.losses)


def inspect_data(
    data: DataNames,
    *,
    split: str = "train",
    format: str = "think-answer",
    limit: int | None = None,
    options: Mapping[str, Any] | None = None,
    processor: Any = None,
    max_length: int | None = 4096,
    against: Sequence[str] = (),
) -> Inspection:
    """Read a split, check and measure it.

    Args:
        data: a data set, or several (`data.mixture`).
        format: the format in which training would write completions.
        processor: the model's, or its tokenizer. Rows that training would refuse with it are bad rows. Without one,
            lengths are numbers of words and tags.
        max_length: of the training; a longer sample is a bad row. It needs the processor.
        against: benchmarks (`scienceqa:folder`) whose test pictures and questions must not be trained on.

    Raises what `load_data` raises, except for bad rows, which are part of the result.
    """
    benchmarks = {name: load_test_items(name) for name in against}
    alone = not has_chat_template(processor)  # else the check with the model opens the pictures
    loaded = _read_rows(data, split, limit, options, None if alone else format)
    names = (data,) if isinstance(data, str) else tuple(part.data for part in list_parts(data))
    shown = " ".join(names)
    measure, unit = choose_length_measure(tokenizer_of(processor))
    compared = tuple(_describe_benchmark(name, items) for name, items in benchmarks.items())
    checked = _check_examples(loaded.examples, format, processor, max_length)
    samples, fingerprints = [], []
    pairs = list(zip(checked.examples, checked.totals, strict=False))
    for example, total in track_progress(pairs, f"{shown}, {split}"):
        think, answer = measure(render(example.think, example.answer, format), format) if example.think else (0, 0)
        samples.append(Sample(example, think, answer, total or None))
        fingerprints.append(fingerprint_example(example, with_look_hashes=bool(against)))
    leaks = _compare_with_benchmarks(fingerprints, benchmarks)
    return Inspection(
        data=shown,
        split=split,
        format=format,
        unit=unit,
        samples=samples,
        bad_rows=tuple(sorted((*loaded.bad_rows, *checked.bad_rows), key=lambda bad: bad.row)),
        totals=[total for total in checked.totals if total and checked.are_complete],
        repeats=list(find_repeats(fingerprints)),
        leaks=[leak for leak in leaks if leak.kind != "question_only"],
        shared_questions=[leak for leak in leaks if leak.kind == "question_only"],
        sizes=[image_size(image) for example in checked.examples for image in example.images],
        benchmarks=compared,
        plain_pictures=find_plain_pictures(checked.examples),
        picture_option=checked.picture_option,
        unread_texts=_count_unread(data, checked.examples, find_unread_texts),
        unread_pictures=_count_unread(data, checked.examples, find_unread_pictures),
        names=names,
    )


def _read_rows(
    data: DataNames, split: str, limit: int | None, options: Mapping[str, Any] | None, written_as: str | None
) -> LoadedData:
    """The rows as SFT reads them to write them in this format, or as GRPO does where each good one lacks reasoning.

    Without a format, pictures are opened, and no row must have reasoning.
    """
    rows = stream_data(
        data,
        split=split,
        limit=limit,
        on_bad_row="drop",
        verify_images=written_as is None,
        written_as=written_as,
        options=options,
    )
    loaded = LoadedData(list(rows), tuple(rows.bad_rows))
    if loaded.examples or all(bad.problems != ("no_think",) for bad in loaded.bad_rows):
        return loaded
    return load_data(data, split=split, limit=limit, on_bad_row="drop", options=options)


class _CheckedExamples(NamedTuple):
    """The good examples, and what is wrong with the others.

    `totals` are the tokens of each sample, 0 where they were not counted, the good ones first. `are_complete`: with
    completions; GRPO's prompts have no `max_length`.
    """

    examples: list[Example]
    bad_rows: list[BadRow]
    totals: Sequence[int]
    are_complete: bool = True
    picture_option: PictureOption | None = None


def _check_examples(
    examples: Sequence[Example], format: str, processor: Any, max_length: int | None
) -> _CheckedExamples:
    """Without a chat template no sample can be written as the model reads it, so only the texts are checked."""
    if not has_chat_template(processor):
        good, bad_rows = _without_tagged(examples, format)
        return _CheckedExamples(good, bad_rows, [0] * len(good))
    checked = check_with_model(examples, format, processor, max_length)
    limit = max_length if checked.are_complete else None
    option = find_picture_option(checked.measured, checked.tokens, processor, limit)
    return _CheckedExamples(checked.examples, checked.bad_rows, checked.tokens, checked.are_complete, option)


def _compare_with_benchmarks(
    samples: Sequence[Fingerprint], benchmarks: Mapping[str, BenchmarkItems]
) -> list[Duplicate]:
    """The samples that are also among a benchmark's test items, or share a question with one."""
    leaks: list[Duplicate] = []
    for name, items in benchmarks.items():
        tests = [fingerprint_example(example) for example in track_progress(items.examples, name)]
        leaks += find_leaks(samples, tests, name)
    return leaks


def _without_tagged(examples: Sequence[Example], format: str) -> tuple[list[Example], list[BadRow]]:
    """The examples that training can write in a format, and the others as bad rows. Missing reasoning is allowed."""
    good, tagged = [], []
    for position, example in enumerate(examples, 1):
        problems = [one for one in find_written_problems(example, get_format(format)) if one.name != "no_think"]
        if problems:
            tagged.append(to_bad_row(example, position, problems))
        else:
            good.append(example)
    return good, tagged


def _count_unread(data: DataNames, examples: Sequence[Example], find: Callable[[Example], list[str]]) -> dict[str, int]:
    """The names in a user's own rows under which there is what nothing reads, each with its number of rows."""
    if not any(resolve_data(part.data).dataset == "jsonl" for part in list_parts(data)):
        return {}
    return dict(Counter(name for example in examples for name in find(example)))


def _describe_benchmark(name: str, items: BenchmarkItems) -> str:
    """A benchmark, and what of it was compared. Raises DataError if none of its pictures exists."""
    pictures = [image for example in items.examples for image in example.images]
    missing = sum(isinstance(image, Path) and not image.is_file() for image in pictures)
    if pictures and missing == len(pictures):
        raise DataError(f"{name}: all {missing} test pictures are missing ({pictures[0]} is the first): unpack them")
    parts = [f"{len(items.examples):,} test items"]
    parts += [f"{missing:,} of their pictures are missing"] if missing else []
    parts += [f"{items.unreadable:,} of its rows could not be read"] if items.unreadable else []
    return f"{name} ({', '.join(parts)})"
