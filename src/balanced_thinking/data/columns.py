"""Reasoning and answer that are given apart: in columns, or as a turn's reasoning beside its content.

Such texts often carry tags of their own. One pair around each is taken off; an answer that has the tags of a completion
inside is parsed as one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from balanced_thinking.data.values import RowProblemError
from balanced_thinking.segments import FORMATS, ReasoningFormat, get_format, parse, recognise_format

FormatSpec = str | Mapping[str, Any] | ReasoningFormat
PROSE = "prose"
THINK_NAMES = "think|thinking|thought|thoughts|reason|reasoning|rationale|analysis|cot|scratchpad|reflection"
ANSWER_NAMES = "answer|final_answer|final answer|final|conclusion"
_PAIR = r"\s*<\s*({names})\s*>(?P<inner>.*)<\s*/\s*\1\s*>\s*"
_THINK_PAIR = re.compile(_PAIR.format(names=THINK_NAMES), re.IGNORECASE | re.DOTALL)
_ANSWER_PAIR = re.compile(_PAIR.format(names=ANSWER_NAMES), re.IGNORECASE | re.DOTALL)


class Columns(NamedTuple):
    """Reasoning and answer without tags. `read_as`: the answer was a completion in this format."""

    think: str | None
    answer: str
    read_as: str | None = None


def split_columns(think: str | None, answer: str, format: FormatSpec = "auto") -> Columns:
    """Take the tags off. `format` is that of completions. Raises RowProblemError for an answer with odd tags."""
    think = peel_tags(think or "", format, "think") or None
    answer = peel_tags(answer, format, "answer")
    shape = _completion_format(answer, format)
    if shape is None:
        return Columns(think, answer)
    parsed = parse(answer, shape)
    problems = [name for name in parsed.problems if name != "no_think"]
    if shape.think_close and not shape.prose and not parsed.think and not answer.startswith(shape.answer_open):
        problems.append("text_between")
    if problems or parsed.answer is None:
        raise RowProblemError(answer, *(problems or ("no_answer",)))
    if think and parsed.think and think != parsed.think:
        if shape.think_close:
            raise RowProblemError(f"{think} / {answer}", "multiple_thinks")
        return Columns(f"{think}\n\n{parsed.think}", parsed.answer)
    return Columns(think or parsed.think, parsed.answer, None if think else parsed.format)


def _completion_format(text: str, format: FormatSpec) -> ReasoningFormat | None:
    """The format whose answer, or whose closed reasoning, the text has; None for a text without."""
    shape = recognise_format(text) if format in ("auto", PROSE) else get_format(format)
    if shape.think_close and shape.think_close in text:
        return shape
    return shape if shape.answer_open and shape.answer_open in text else None


def peel_tags(text: str, format: FormatSpec, part: str) -> str:
    """The text of a column without the one pair of tags around it, and without outer white space.

    `part` is `think` or `answer`. Known are the tags of every format, and usual names in any case.
    """
    text = text.strip()
    for opening, closing in _known_pairs(format, part):
        if len(text) >= len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
            inner = text[len(opening) : len(text) - len(closing)]
            if _is_balanced(inner, opening, closing):
                return inner.strip()
    found = (_THINK_PAIR if part == "think" else _ANSWER_PAIR).fullmatch(text)
    if found and not re.search(rf"<\s*/?\s*{re.escape(found[1])}\s*>", found["inner"], re.IGNORECASE):
        return found["inner"].strip()
    return text


def peel_answer_name(text: str) -> str:
    """The answer of a completion without the one pair of tags around it that its format does not have."""
    found = _ANSWER_PAIR.fullmatch(text)
    return found["inner"].strip() if found and found["inner"].strip() else text


def _known_pairs(format: FormatSpec, part: str) -> Iterator[tuple[str, str]]:
    own = [] if format in ("auto", PROSE) else [get_format(format)]
    for shape in (*own, *FORMATS.values()):
        opening, closing = (getattr(shape, f"{part}_{side}") for side in ("open", "close"))
        if opening and closing:
            yield opening, closing


def _is_balanced(inner: str, opening: str, closing: str) -> bool:
    """Whether the tags around a text are one pair: inside, none of them closes it or opens another."""
    if not (opening.endswith("{") and closing == "}"):
        return opening not in inner and closing not in inner
    depth = 0
    for char in inner:
        depth += (char == "{") - (char == "}")
        if depth < 0:
            return False
    return depth == 0
