"""Spans of characters -> one segment per token of one ordinary tokenization of the whole text."""

from __future__ import annotations

from collections.abc import Sequence

from balanced_thinking.segments.parser import ANSWER, THINK, Parsed


def token_segments(parsed: Parsed, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """THINK or ANSWER for each token, given the (start, end) character offsets of the tokens of `parsed.text`.

    A token over the border belongs to the segment of its first non-space character; a token of zero width (an EOS that
    the tokenizer added) to that of the token before it, or at the start of the one that follows. Without an answer all
    is THINK. Raises ValueError for offsets beyond the text.
    """
    length = len(parsed.text)
    if any(end > length for _, end in offsets):
        found = max(end for _, end in offsets)
        raise ValueError(
            f"token offsets reach {found}, but the parsed text has {length} characters: pass the offsets of"
            " a tokenization of parsed.text itself, without the prompt"
        )
    border = next((span.start for span in parsed.spans if span.segment == ANSWER), length + 1)
    # The character before the border is never white (`parse` gives white space to the segment that follows), so a token
    # that starts before the border has its first non-space character there: its start decides.
    starts = [start for start, end in offsets if end > start]
    segment = ANSWER if (starts[0] if starts else 0) >= border else THINK
    segments = []
    for start, end in offsets:
        if end > start:
            segment = ANSWER if start >= border else THINK
        segments.append(segment)
    return segments
