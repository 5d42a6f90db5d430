"""Which tokens close the thinking, mark the answer and end the turn: the few that decide whether there is an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from balanced_thinking.segments.formats import ReasoningFormat
from balanced_thinking.segments.opening import opens_thinking
from balanced_thinking.segments.parser import Parsed, actual_format
from balanced_thinking.segments.scan import TagScan, strip_space_and_turn_end


class CharSpan(NamedTuple):
    """Characters [start, end) of a text."""

    start: int
    end: int


def closing_spans(parsed: Parsed, format: ReasoningFormat) -> list[CharSpan]:
    """Where a parsed text closes its thinking, opens and closes its answer (wrap included) and ends its turn, in order.

    `format` is the one that the text was parsed with; for "auto" what it recognised is used. What a format does not
    mark has no span. Of several blocks of thinking it is the last one that leads to the answer.
    """
    fmt = actual_format(parsed, format)
    text, opened = parsed.text, parsed.opened
    scan = TagScan(text, fmt, in_think=bool(opened) and opens_thinking(opened, fmt))
    spans = [CharSpan(*scan.close)] if scan.close else []
    if scan.answer is not None and fmt.answer_open:
        spans += _find_wrap(text, fmt.wrap[0], scan.border, scan.answer.start)
        spans += [
            CharSpan(scan.answer.start, scan.answer.inner_start),
            CharSpan(scan.answer.inner_end, scan.answer.end),
        ]
        spans += _find_wrap(text, fmt.wrap[1], scan.answer.end, len(text))
    # An answer without a closing tag runs to the end, the end token included.
    last = max((span.end for span in spans if span.start < span.end), default=0)
    spans.append(CharSpan(max(last, strip_space_and_turn_end(text, 0, len(text))[1]), len(text)))
    return [span for span in spans if text[slice(*span)].strip()]


def _find_wrap(text: str, tag: str, start: int, end: int) -> list[CharSpan]:
    found = text.find(tag, start, end) if tag else -1
    return [] if found < 0 else [CharSpan(found, found + len(tag))]


def mark_closing_tokens(
    parsed: Parsed, format: ReasoningFormat, offsets: Sequence[tuple[int, int]], end: str | None = None
) -> list[int]:
    """1 for each token that has a character of `closing_spans` other than white space, else 0.

    `offsets` are the (start, end) characters of the tokens of `parsed.text`. `end` is the end token of the model, for
    texts that end in one that is not generally known.
    """
    spans = closing_spans(parsed, format)
    if end and parsed.text.rstrip().endswith(end):
        stop = len(parsed.text.rstrip())
        spans.append(CharSpan(stop - len(end), stop))
    marked = {place for start, stop in spans for place in range(start, stop) if not parsed.text[place].isspace()}
    return [int(any(place in marked for place in range(*offset))) for offset in offsets]
