"""A completion cut into its thinking, its answer and the rest, for display."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from balanced_thinking.segments import ReasoningFormat, get_format, parse

SEGMENTS = {1: "thinking", 2: "answer"}


OUTSIDE = "outside the tags"


TAG = re.compile(r"(</?[^<>\s]{1,40}>|<\|[^<>\s]{1,40}\|>)")


class Piece(NamedTuple):
    """Text that is one tag, or that has no tags."""

    text: str
    is_tag: bool


@dataclass(frozen=True)
class Segment:
    """A part of a completion. `kind` is `thinking`, `answer` or OUTSIDE."""

    kind: str
    pieces: tuple[Piece, ...]

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


def split_completion(
    completion: str, reasoning_format: str | ReasoningFormat, problems: Collection[str] = ()
) -> Iterator[Segment]:
    """The completion, cut where the parser cuts it. The texts of all segments together are the completion.

    `problems` are those of its prediction: where the prompt opened a thinking that was cut off, no tag shows it.
    """
    opened = get_format(reasoning_format).think_open if "unclosed_think" in problems else ""
    end = 0
    for span in sorted(parse(completion, reasoning_format, opened=opened).spans, key=lambda span: span.start):
        if span.start > end:
            yield _make_segment(completion[end : span.start], OUTSIDE)
        yield _make_segment(completion[max(span.start, end) : span.end], SEGMENTS.get(span.segment, OUTSIDE))
        end = max(end, span.end)
    if end < len(completion):
        yield _make_segment(completion[end:], OUTSIDE)


def _make_segment(text: str, kind: str) -> Segment:
    return Segment(kind, tuple(Piece(piece, bool(TAG.fullmatch(piece))) for piece in TAG.split(text) if piece))
