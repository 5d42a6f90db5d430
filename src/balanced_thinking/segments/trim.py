"""Shorten reasoning in its middle, so that a long sample keeps its beginning, its end and its answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from balanced_thinking.segments.formats import ReasoningFormat
from balanced_thinking.segments.parser import Parsed
from balanced_thinking.segments.scan import strip_space_and_turn_end, think_tag_pattern

OVERFLOW = ("error", "drop", "trim_think")  # what becomes of a sample that is too long
# What separates two units that may be cut.
SENTENCE_GAPS = re.compile(r"(?<=[.!?\n])\s+")
WORD_GAPS = re.compile(r"\s+")


def longest_think_span(parsed: Parsed, format: ReasoningFormat) -> tuple[int, int]:
    """[start, end) of the longest piece of reasoning between two thinking tags: text that can be cut without a tag."""
    start, end = parsed.think_span or (0, 0)
    borders = [
        start,
        *(border for tag in think_tag_pattern(format).finditer(parsed.text, start, end) for border in tag.span()),
    ]
    stretches = zip(borders[::2], [*borders[1::2], end], strict=True)
    return max(
        (strip_space_and_turn_end(parsed.text, *stretch) for stretch in stretches),
        key=lambda stretch: stretch[1] - stretch[0],
    )


def trim_think(parsed: Parsed, keep: int, units: Sequence[tuple[int, int]]) -> str:
    """The text with only the first and last of its reasoning's `units` (ordered character spans), `keep` in total."""
    if not units:
        return parsed.text
    head, tail = units[: (keep + 1) // 2], units[len(units) - keep // 2 :]
    kept = " ".join(parsed.text[a:b] for a, b in (*head, *tail))
    return parsed.text[: units[0][0]] + kept + parsed.text[units[-1][1] :]


def split_longest_think(parsed: Parsed, pattern: re.Pattern[str], format: ReasoningFormat) -> list[tuple[int, int]]:
    """Character spans between the matches of `pattern` in the longest stretch of the reasoning."""
    start, end = longest_think_span(parsed, format)
    units = []
    for match in pattern.finditer(parsed.text, start, end):
        units.append((start, match.start()))
        start = match.end()
    return [*units, (start, end)] if start < end else units
