"""The lengths of a sample: of its reasoning, of its answer, and of everything that the model reads."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from balanced_thinking.scoring.characters import UNSPACED
from balanced_thinking.segments import ANSWER, THINK, get_format, parse, token_segments


class SegmentLengths(NamedTuple):
    """Tokens or words of a completion's reasoning and answer. The answer includes the end of the turn."""

    think: int
    answer: int


class LengthMeasure(NamedTuple):
    """A function from a completion and its format to its lengths, and their unit: `tokens` or `words`."""

    measure: Callable[[str, str], SegmentLengths]
    unit: str


def choose_length_measure(tokenizer: Any) -> LengthMeasure:
    """Count tokens with a tokenizer, words without one (None)."""

    def measure_tokens(text: str, format: str) -> SegmentLengths:
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        segments = token_segments(parse(text, format), offsets)
        return SegmentLengths(segments.count(THINK), segments.count(ANSWER) + 1)

    return LengthMeasure(_measure_words, "words") if tokenizer is None else LengthMeasure(measure_tokens, "tokens")


def _measure_words(text: str, format: str) -> SegmentLengths:
    words = {THINK: 0, ANSWER: 0}
    for span in parse(text, format).spans:
        words[span.segment] += _count_words(text[span.start : span.end], format)
    return SegmentLengths(words[THINK], words[ANSWER] + 1)


def _count_words(text: str, format: str) -> int:
    """The number of words; each tag of the format counts as one, and each letter of a script without spaces."""
    fmt = get_format(format)
    tags = sorted(filter(None, (*fmt.tag_kinds, *fmt.wrap)), key=len, reverse=True)
    return len(re.sub("|".join([*map(re.escape, tags), UNSPACED]), " word ", text).split())
