"""Text -> thinking, answer, named problems and a partition into segments. Total on strings, linear in their length.

One pass over the format's tags (`scan`), then slices. Decisions:

- The last answer outside thinking counts; a second thinking block is thinking, too.
- Unclosed thinking swallows the rest: an answer inside it is a draft (`answer_inside_think` and `no_answer`), because a
  truncated reasoning can't be told from a forgotten closing tag.
- Absent and empty are both None; the problem tells which. `answer is None` exactly with `no_answer` or `empty_answer`.
- With no answer the whole text is THINK.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from balanced_thinking.segments.formats import ReasoningFormat, get_format, recognise
from balanced_thinking.segments.scan import END_OF_TURN, Scan, content, think_tags

IGNORE, THINK, ANSWER = 0, 1, 2

PROBLEMS: dict[str, str] = {
    "no_think": "there is no thinking, but the format asks for it (in tables: think or reasoning)",
    "empty_think": "the thinking is empty",
    "missing_open_think": "the thinking is closed but was never opened",
    "unclosed_think": "the thinking is never closed: truncated, or the closing tag was forgotten",
    "multiple_thinks": "there is more than one block of thinking",
    "nested_tag": "a tag stands where it has no place: inside a block of its kind, or closing what is closed",
    "text_before_think": "there is text before the thinking",
    "text_between": "there is text between the thinking and the answer",
    "answer_inside_think": "an answer stands only inside the thinking, so it counts as a draft",
    "no_answer": "there is no answer (in tables: answer)",
    "empty_answer": "the answer is empty",
    "unclosed_answer": "the answer is never closed: truncated, or the closing tag was forgotten",
    "multiple_answers": "there is more than one answer outside thinking; the last one counts",
    "text_after_answer": "there is text after the answer that is not an end-of-turn token",
}


class Span(NamedTuple):
    """Characters [start, end) of the text that belong to one segment (THINK or ANSWER)."""

    start: int
    end: int
    segment: int


@dataclass(frozen=True)
class Parsed:
    """A text taken apart. Offsets count characters of `text`; `spans` covers all of it, in order and without overlap.

    `think` and `answer` are the slices of their spans, without tags and outer white space, except that the tags between
    the stages of a format (LLaVA-CoT, Mulberry) are inside `think_span` but replaced by a blank line in `think`.
    """

    text: str
    format: str
    think: str | None
    answer: str | None
    think_span: tuple[int, int] | None
    answer_span: tuple[int, int] | None
    spans: tuple[Span, ...]
    problems: tuple[str, ...]

    @property
    def well_formed(self) -> bool:
        """Whether there is no problem."""
        return not self.problems


def parse(text: str, format: str | Mapping[str, Any] | ReasoningFormat = "think-answer") -> Parsed:
    """Take a text apart. Never raises on any text; raises ValueError for an unknown format only."""
    fmt = get_format(format)
    if fmt.name == "auto":
        fmt = recognise(text)
    scan = Scan(text, fmt)
    answer_span = _answer_span(scan)
    think_span = _think_span(scan)
    think = _without_stage_tags(text, think_span, fmt)
    # White space between segments belongs to the one that follows; without an answer all is thinking.
    border = len(text[: scan.border].rstrip()) if answer_span else len(text)
    spans = (Span(0, border, THINK), Span(border, len(text), ANSWER))
    return Parsed(
        text=text,
        format=fmt.name,
        think=think,
        answer=None if answer_span is None else text[slice(*answer_span)],
        think_span=think_span if think else None,
        answer_span=answer_span,
        spans=tuple(span for span in spans if span.start < span.end),
        problems=_problems(scan, think, answer_span),
    )


def _answer_span(scan: Scan) -> tuple[int, int] | None:
    if scan.answer is None:
        return None
    start, end = content(scan.text, scan.answer.inner_start, scan.answer.inner_end)
    return (start, end) if start < end else None


def _think_opened(scan: Scan) -> tuple[int, int] | None:
    """The opening tag, if it comes before the answer: a block after it is text after the answer."""
    if scan.opened is None or (scan.answer and scan.opened[0] > scan.answer.start):
        return None
    return scan.opened


def _think_span(scan: Scan) -> tuple[int, int] | None:
    opened = _think_opened(scan)
    if opened is None and scan.fmt.think_close:
        return None
    end = scan.close[0] if scan.close else scan.border
    start, end = content(scan.text, opened[1] if opened else 0, end)
    return (start, end) if start < end else None


def _without_stage_tags(text: str, span: tuple[int, int] | None, fmt: ReasoningFormat) -> str | None:
    if span is None:
        return None
    think = text[slice(*span)]
    if fmt.stages:
        pieces = (piece.strip() for piece in think_tags(fmt).split(think))
        think = "\n\n".join(piece for piece in pieces if piece)
    return think or None


def _problems(scan: Scan, think: str | None, answer_span: tuple[int, int] | None) -> tuple[str, ...]:
    found = scan.problems | _think_problems(scan, think) | _answer_problems(scan, answer_span)
    if scan.answers:
        found.discard("answer_inside_think")  # a draft is no problem where an answer follows
    return tuple(name for name in PROBLEMS if name in found)


def _think_problems(scan: Scan, think: str | None) -> set[str]:
    found: set[str] = set()
    opened = _think_opened(scan)
    if think is None and opened:
        found.add("empty_think")
    elif think is None and scan.fmt.think_required:
        found.add("no_think")
    if opened and scan.text[: opened[0]].strip():
        found.add("text_before_think")
    return found


def _answer_problems(scan: Scan, answer_span: tuple[int, int] | None) -> set[str]:
    found: set[str] = set()
    if answer_span is None:
        found.add("empty_answer" if scan.answer else "no_answer")
    # Without a closing think tag earlier answers are drafts of the free reasoning.
    if scan.fmt.think_close and len(scan.answers) > 1:
        found.add("multiple_answers")
    if scan.fmt.answer_open and scan.answer:
        if scan.close and not scan.fmt.prose and _text_between(scan, scan.close[1]):
            found.add("text_between")
        if not _ignorable(scan.text[scan.answer.end :], scan.fmt):
            found.add("text_after_answer")
    return found


def _text_between(scan: Scan, close_end: int) -> bool:
    first_answer = next(answer.start for answer in scan.answers if answer.start >= close_end)
    return bool(scan.text[close_end:first_answer].strip())


def _ignorable(tail: str, fmt: ReasoningFormat) -> bool:
    for token in (*END_OF_TURN, *fmt.wrap):
        tail = tail.replace(token, " ") if token else tail
    return all(char.isspace() or char in fmt.tail for char in tail)
