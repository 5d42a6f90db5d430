"""Text -> thinking, answer, named problems and a partition into segments. Accepts any string, in linear time.

One pass over the format's tags (`scan`), then slices. Decisions:

- The last answer outside thinking counts. A second thinking block is thinking, too.
- Unclosed thinking runs to the end. An answer inside it is a draft (`answer_inside_think` and `no_answer`), because
  truncated reasoning looks the same as a forgotten closing tag.
- Absent and empty are both None; the problem says which. `answer is None` exactly with `no_answer` or `empty_answer`.
- Without an answer the complete text is THINK.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from balanced_thinking.segments.formats import ReasoningFormat, get_format, recognise_format
from balanced_thinking.segments.opening import opens_thinking
from balanced_thinking.segments.scan import END_OF_TURN, TagScan, strip_space_and_turn_end, think_tag_pattern

IGNORE, THINK, ANSWER = 0, 1, 2
_BOX = r"\boxed{"
# What opens mathematics, or bold text, before a box, and what closes it behind.
_AROUND_BOX = {"$$": "$$", "$": "$", r"\[": r"\]", r"\(": r"\)", "**": "**"}

PROBLEMS: dict[str, str] = {
    "no_think": "there is no thinking, but the format requires it (in a table: the column think or reasoning; for "
    "answers alone: reasoning_format direct)",
    "empty_think": "the thinking is empty",
    "missing_open_think": "the thinking is closed but was never opened",
    "unclosed_think": "the thinking is never closed: truncated, or the closing tag was forgotten",
    "multiple_thinks": "there is more than one block of thinking",
    "nested_tag": "a misplaced tag: inside a block of its own kind, or closing a block that is not open",
    "text_before_think": "there is text before the thinking",
    "text_between": "there is text between the thinking and the answer",
    "answer_inside_think": "the only answer is inside the thinking, so it counts as a draft",
    "no_answer": "there is no answer (in a table: the column answer)",
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
    """A parsed text. Offsets count characters of `text`; `spans` covers all of it, in order and without overlap.

    `think` and `answer` are the slices of their spans, without the tags around them and outer white space. Tags inside
    stay, as in `<think>a</think><think>b</think>`, which is not well-formed; but where a format has stages (LLaVA-CoT,
    Mulberry), `think` has a blank line in the place of the tags between them. `opened` is what the prompt had opened
    before the text; it is no part of the text. `free_reasoning`: the format marks the answer alone (`boxed`), so every
    answer before the last one was a draft.
    """

    text: str
    format: str
    think: str | None
    answer: str | None
    think_span: tuple[int, int] | None
    answer_span: tuple[int, int] | None
    spans: tuple[Span, ...]
    problems: tuple[str, ...]
    opened: str = ""
    free_reasoning: bool = False

    @property
    def well_formed(self) -> bool:
        """Whether there is no problem."""
        return not self.problems


def parse(text: str, format: str | Mapping[str, Any] | ReasoningFormat = "think-answer", *, opened: str = "") -> Parsed:
    """Split a text into thinking and answer. Accepts any text; raises ValueError only for an unknown format.

    `opened` is what the prompt before the text has opened already, as `find_opened` returns it: a text after a prompt
    that ends in `<think>` is thinking until it closes it.
    """
    fmt = get_format(format)
    if fmt.name == "auto":
        fmt = recognise_format(opened + text)
    scan = TagScan(text, fmt, in_think=bool(opened) and opens_thinking(opened, fmt))
    answer_span = _find_answer_span(scan)
    think_span = _find_think_span(scan)
    think = _remove_stage_tags(text, think_span, fmt)
    # White space between segments belongs to the second one. Without an answer all is thinking.
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
        problems=_find_problems(scan, think, answer_span),
        opened=opened,
        free_reasoning=bool(fmt.answer_open) and not fmt.think_close,
    )


def actual_format(parsed: Parsed, asked: ReasoningFormat) -> ReasoningFormat:
    """The format that a text was parsed with: the one asked for, or for "auto" the one that the parser recognised."""
    return get_format(parsed.format) if asked.name == "auto" else asked


def _find_answer_span(scan: TagScan) -> tuple[int, int] | None:
    if scan.answer is None:
        return None
    start, end = strip_space_and_turn_end(scan.text, scan.answer.inner_start, scan.answer.inner_end)
    return (start, end) if start < end else None


def _find_think_opening(scan: TagScan) -> tuple[int, int] | None:
    """The opening tag, if it is before the answer. A thinking block after the answer is text after the answer."""
    if scan.opened is None or (scan.answer and scan.opened[0] > scan.answer.start):
        return None
    return scan.opened


def _find_think_span(scan: TagScan) -> tuple[int, int] | None:
    opened = _find_think_opening(scan)
    if opened is None and scan.fmt.think_close:
        return None
    end = scan.close[0] if scan.close else scan.border
    start, end = strip_space_and_turn_end(scan.text, opened[1] if opened else 0, end)
    if scan.fmt.answer_open == _BOX and scan.answer:
        start, end = strip_space_and_turn_end(scan.text, start, end - _length_before_box(scan.text[start:end], scan))
    return (start, end) if start < end else None


def _length_before_box(before: str, scan: TagScan) -> int:
    """The length of what opens mathematics around the answer's box at the end of this text; 0 without."""
    behind = scan.text[scan.answer.end :].lstrip() if scan.answer else ""
    pairs = ((o, c) for o, c in _AROUND_BOX.items() if before.endswith(o) and behind.startswith(c))
    return max((len(opening) for opening, _ in pairs), default=0)


def _remove_stage_tags(text: str, span: tuple[int, int] | None, fmt: ReasoningFormat) -> str | None:
    if span is None:
        return None
    think = text[slice(*span)]
    if fmt.stages:
        pieces = (piece.strip() for piece in think_tag_pattern(fmt).split(think))
        think = "\n\n".join(piece for piece in pieces if piece)
    return think or None


def _find_problems(scan: TagScan, think: str | None, answer_span: tuple[int, int] | None) -> tuple[str, ...]:
    found = scan.problems | _find_think_problems(scan, think) | _find_answer_problems(scan, answer_span)
    if scan.answers:
        found.discard("answer_inside_think")  # a draft is not a problem if an answer follows
    return tuple(name for name in PROBLEMS if name in found)


def _find_think_problems(scan: TagScan, think: str | None) -> set[str]:
    found: set[str] = set()
    opened = _find_think_opening(scan)
    if think is None and opened:
        found.add("empty_think")
    elif think is None and scan.fmt.think_required:
        found.add("no_think")
    if opened and scan.text[: opened[0]].strip():
        found.add("text_before_think")
    return found


def _find_answer_problems(scan: TagScan, answer_span: tuple[int, int] | None) -> set[str]:
    found: set[str] = set()
    if answer_span is None:
        found.add("empty_answer" if scan.answer else "no_answer")
    # Without a closing think tag earlier answers are drafts of the free reasoning.
    if scan.fmt.think_close and len(scan.answers) > 1:
        found.add("multiple_answers")
    if scan.fmt.answer_open and scan.answer:
        if scan.close and not scan.fmt.prose and _has_text_before_answer(scan, scan.close[1]):
            found.add("text_between")
        if not _is_ignorable(scan.text[scan.answer.end :], scan.fmt):
            found.add("text_after_answer")
    return found


def _has_text_before_answer(scan: TagScan, close_end: int) -> bool:
    first_answer = next(answer.start for answer in scan.answers if answer.start >= close_end)
    return bool(scan.text[close_end:first_answer].strip())


def _is_ignorable(tail: str, fmt: ReasoningFormat) -> bool:
    for token in (*END_OF_TURN, *fmt.wrap):
        tail = tail.replace(token, " ") if token else tail
    return all(char.isspace() or char in fmt.tail for char in tail)
