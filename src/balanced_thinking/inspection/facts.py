"""What an inspection finds, once, for whoever shows it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from balanced_thinking.data.bad_rows import BadRow
from balanced_thinking.data.example import Example
from balanced_thinking.data.images import image_size
from balanced_thinking.data.load import load_data, load_test_items
from balanced_thinking.data.rows import prompt_messages
from balanced_thinking.inspection.twins import Twin, fingerprint, twins_between, twins_within
from balanced_thinking.segments import ANSWER, THINK, get_format, parse, render, token_segments
from balanced_thinking.system.progress import track


@dataclass(frozen=True)
class Sample:
    """One good row, measured. `whole` is prompt, pictures and completion, where the model's processor was there."""

    example: Example
    think: int
    answer: int
    whole: int | None = None


@dataclass(frozen=True)
class Inspection:
    """A split's good rows with their lengths in `unit`, and everything that is wrong with it."""

    data: str
    split: str
    format: str
    unit: str  # tokens, or words where there was no tokenizer
    samples: list[Sample]
    bad_rows: tuple[BadRow, ...] = ()
    twins: list[Twin] = field(default_factory=list)
    leaks: list[Twin] = field(default_factory=list)
    asked: list[Twin] = field(default_factory=list)  # a test item's question about another picture
    sizes: list[tuple[int, int]] = field(default_factory=list)  # of every picture, width and height in pixels
    benchmarks: tuple[str, ...] = ()  # each with how much of it was compared

    @property
    def reasoned(self) -> list[Sample]:
        return [sample for sample in self.samples if sample.example.think]

    @property
    def think_share(self) -> float | None:
        """The share of plain SFT's loss that goes to the reasoning; None where there is none."""
        think, answer = (sum(getattr(s, name) for s in self.reasoned) for name in ("think", "answer"))
        return think / (think + answer) if think + answer else None


def inspect_data(
    data: str,
    *,
    split: str = "train",
    format: str = "think-answer",
    limit: int | None = None,
    options: Mapping[str, Any] | None = None,
    processor: Any = None,
    against: Sequence[str] = (),
) -> Inspection:
    """Read a split and measure it.

    Args:
        format: that training would write completions in.
        processor: the model's, or its tokenizer; without one lengths are words and tags.
        against: benchmarks (`scienceqa:folder`) whose test pictures and questions must not be trained on.

    Raises as `load_data` does, but for bad rows, which are part of what is found.
    """
    tested = {name: load_test_items(name) for name in against}
    loaded = load_data(data, split=split, limit=limit, on_bad_row="drop", verify_images=True, options=options)
    measure, unit = _measure(getattr(processor, "tokenizer", processor))
    compared = tuple(_compared(name, *found) for name, found in tested.items())
    samples, prints = [], []
    for example in track(loaded.examples, f"{data}, {split}"):
        think, answer = measure(render(example.think, example.answer, format), format) if example.think else (0, 0)
        samples.append(Sample(example, think, answer, _whole(example, format, processor)))
        prints.append(fingerprint(example, looks=bool(against)))
    leaks: list[Twin] = []
    for name, (examples, _) in tested.items():
        leaks += twins_between(prints, [fingerprint(example) for example in track(examples, name)], name)
    return Inspection(
        data=data,
        split=split,
        format=format,
        unit=unit,
        samples=samples,
        bad_rows=loaded.bad_rows,
        twins=list(twins_within(prints)),
        leaks=[twin for twin in leaks if twin.kind != "asked"],
        asked=[twin for twin in leaks if twin.kind == "asked"],
        sizes=[image_size(image) for example in loaded.examples for image in example.images],
        benchmarks=compared,
    )


def _compared(name: str, examples: Sequence[Example], unread: int) -> str:
    """A benchmark, and how much of it was compared. Raises ValueError where none of its pictures is there."""
    pictures = [image for example in examples for image in example.images]
    away = sum(isinstance(image, Path) and not image.is_file() for image in pictures)
    if pictures and away == len(pictures):
        raise ValueError(f"{name}: none of its {away} test pictures is there ({pictures[0]} is the first): unpack them")
    told = [f"{len(examples):,} test items"]
    told += [f"{away:,} of their pictures are missing"] if away else []
    told += [f"{unread:,} rows of it could not be read"] if unread else []
    return f"{name} ({', '.join(told)})"


def _whole(example: Example, format: str, processor: Any) -> int | None:
    """Tokens of prompt, pictures and completion together, without processing a picture; Gemma's frame of a picture and
    other such tokens are left out."""
    if processor is None or (example.images and not hasattr(processor, "_get_num_multimodal_tokens")):
        return None
    from balanced_thinking.batch.rendering import render_row

    completion = [{"role": "assistant", "content": render(example.think, example.answer, format)}]
    row = {
        "id": example.id,
        "prompt": prompt_messages(example),
        "completion": completion,
        "images": list(example.images),
    }
    texts = render_row(row, processor)
    tokenizer = getattr(processor, "tokenizer", processor)
    count = sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts.values())
    if example.images:
        sizes = [image_size(image)[::-1] for image in example.images]
        count += sum(processor._get_num_multimodal_tokens(image_sizes=sizes).num_image_tokens) - len(sizes)
    return count


def _measure(tokenizer: Any) -> tuple[Callable[[str, str], tuple[int, int]], str]:
    """A function from a completion to its (think, answer) lengths, and their unit."""

    def words(text: str, format: str) -> tuple[int, int]:
        think, answer = _lengths_of(parse(text, format).spans, lambda s: _words(text[s.start : s.end], format))
        return think, answer + 1  # the end of the turn

    def tokens(text: str, format: str) -> tuple[int, int]:
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        segments = token_segments(parse(text, format), offsets)
        return segments.count(THINK), segments.count(ANSWER) + 1  # the end of the turn

    return (tokens, "tokens") if tokenizer is not None else (words, "words")


def _words(text: str, format: str) -> int:
    """How many words, each tag of the format being one."""
    fmt = get_format(format)
    tags = sorted(filter(None, (*fmt.tag_kinds(), *fmt.wrap)), key=len, reverse=True)
    return len(re.sub("|".join(map(re.escape, tags)) or r"(?!)", " tag ", text).split())


def _lengths_of(spans: Sequence[Any], length: Callable[[Any], int]) -> tuple[int, int]:
    return (
        sum(length(s) for s in spans if s.segment == THINK),
        sum(length(s) for s in spans if s.segment == ANSWER),
    )
