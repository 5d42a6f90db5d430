"""What is in this data: counts, lengths, the ratio of thinking to answer, and what is wrong with it, as text."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import mean, median
from typing import Any

from balanced_thinking.data import load_data
from balanced_thinking.data.example import Example
from balanced_thinking.segments import ANSWER, THINK, get_format, parse, render, token_segments

_BAR_WIDTH = 40
_RATIO_EDGES = (1, 2, 5, 10, 20, 40, 80, 160, 320)


def inspect_data(
    data: str,
    *,
    split: str,
    format: str,
    limit: int | None,
    options: dict[str, Any],
    tokenizer: Any = None,
) -> str:
    """A readable summary. Lengths are the tokenizer's tokens, or words and tags where there is none."""
    loaded = load_data(data, split=split, limit=limit, on_bad_row="drop", verify_images=True, options=options)
    examples = loaded.examples
    lines = [f"{data}, split {split}: {len(examples)} examples, {loaded.dropped} bad rows"]
    if loaded.bad_rows:
        lines += ["", loaded.table()]
    if not examples:
        return "\n".join(lines)
    lines += ["", *_counts(examples)]
    reasoned = [e for e in examples if e.think]
    if reasoned:
        measure, unit = _measure(tokenizer)
        lengths = [measure(render(e.think, e.answer, format), format) for e in reasoned]
        lines += ["", *_lengths(lengths, unit), "", *_histogram([t / max(1, a) for t, a in lengths])]
    return "\n".join(lines)


def _counts(examples: Sequence[Example]) -> list[str]:
    pictures = Counter(len(e.images) for e in examples)
    families = Counter(e.meta["family"] for e in examples if "family" in e.meta)
    answers = Counter(e.answer for e in examples)
    lines = ["pictures a sample: " + ", ".join(f"{k} in {n}" for k, n in sorted(pictures.items()))]
    if families:
        lines.append("families: " + ", ".join(f"{name} {n}" for name, n in families.most_common()))
    top, n = answers.most_common(1)[0]
    lines.append(f"answers: {len(answers)} different; the most frequent, {top!r}, is right in {n / len(examples):.0%}")
    lines.append(f"with reasoning: {sum(bool(e.think) for e in examples)} of {len(examples)}")
    return lines


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
    tags = sorted(filter(None, (*fmt.tags(), *fmt.wrap)), key=len, reverse=True)
    return len(re.sub("|".join(map(re.escape, tags)) or r"(?!)", " tag ", text).split())


def _lengths_of(spans: Sequence[Any], length: Callable[[Any], int]) -> tuple[int, int]:
    return (
        sum(length(s) for s in spans if s.segment == THINK),
        sum(length(s) for s in spans if s.segment == ANSWER),
    )


def _lengths(lengths: Sequence[tuple[int, int]], unit: str) -> list[str]:
    think, answer = zip(*lengths, strict=True)
    share = sum(think) / (sum(think) + sum(answer))
    return [
        f"think {unit}: mean {mean(think):.0f}, median {median(think):.0f}, longest {max(think)}",
        f"answer {unit}: mean {mean(answer):.1f}, median {median(answer):.0f}, longest {max(answer)}",
        f"plain SFT would spend {share:.1%} of its loss on thinking and {1 - share:.1%} on the answer",
    ]


def _histogram(ratios: Sequence[float]) -> list[str]:
    """One bar for each range of the think-to-answer ratio."""
    edges = (0, *_RATIO_EDGES, float("inf"))
    counts = [sum(low <= r < high for r in ratios) for low, high in itertools.pairwise(edges)]
    shown = [i for i, n in enumerate(counts) if n]
    lines = [f"think-to-answer ratio: mean {mean(ratios):.1f}, median {median(ratios):.1f}"]
    for i in range(shown[0], shown[-1] + 1):
        label = f"{edges[i]:g} to {edges[i + 1]:g}" if i + 1 < len(edges) - 1 else f"{edges[i]:g} or more"
        bar = "█" * round(_BAR_WIDTH * counts[i] / max(counts))
        lines.append(f"  {label:>12}  {bar} {counts[i]}")
    return lines
