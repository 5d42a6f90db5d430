"""Cutting in the middle of the reasoning, so that a long sample keeps its beginning, its end and its answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from balanced_thinking.segments.formats import ReasoningFormat
from balanced_thinking.segments.parser import Parsed
from balanced_thinking.segments.scan import content, think_tags

# What lies between two units that may be cut.
SENTENCES = re.compile(r"(?<=[.!?\n])\s+")
WORDS = re.compile(r"\s+")


def think_stretch(parsed: Parsed, format: ReasoningFormat) -> tuple[int, int]:
    """The longest stretch of the reasoning between thinking tags: what may be cut while every tag stays."""
    start, end = parsed.think_span or (0, 0)
    borders = [
        start,
        *(border for tag in think_tags(format).finditer(parsed.text, start, end) for border in tag.span()),
    ]
    stretches = zip(borders[::2], [*borders[1::2], end], strict=True)
    return max((content(parsed.text, *stretch) for stretch in stretches), key=lambda stretch: stretch[1] - stretch[0])


def trim_think(parsed: Parsed, keep: int, units: Sequence[tuple[int, int]]) -> str:
    """The text with only `keep` of the `units` of its reasoning (character spans in order): the first and last ones."""
    if not units:
        return parsed.text
    head, tail = units[: (keep + 1) // 2], units[len(units) - keep // 2 :]
    kept = " ".join(parsed.text[a:b] for a, b in (*head, *tail))
    return parsed.text[: units[0][0]] + kept + parsed.text[units[-1][1] :]


def think_units(parsed: Parsed, pattern: re.Pattern[str], format: ReasoningFormat) -> list[tuple[int, int]]:
    """Character spans between the matches of `pattern` in the longest stretch of the reasoning."""
    start, end = think_stretch(parsed, format)
    units = []
    for match in pattern.finditer(parsed.text, start, end):
        units.append((start, match.start()))
        start = match.end()
    return [*units, (start, end)] if start < end else units
