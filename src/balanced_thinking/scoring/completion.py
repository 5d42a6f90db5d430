"""A completion taken apart: its segments, whether its answer is complete, whether the turn has ended."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from balanced_thinking.segments import Parsed, ReasoningFormat, generated_segments


def take_apart(
    ids: Sequence[int], stops: Collection[int], tokenizer: Any, format: ReasoningFormat
) -> tuple[Parsed, list[int], bool]:
    """The completion without its stop token, parsed; the segment of each id; and whether there was a stop token."""
    stopped = bool(ids) and ids[-1] in stops
    return *generated_segments(ids[: len(ids) - stopped], tokenizer, format), stopped


def is_whole(parsed: Parsed, stopped: bool) -> bool:
    """Whether the answer is all there: the turn has ended, or something follows the answer. Of 12 cut off, only the 1
    may be there."""
    return stopped or is_closed(parsed)


def ends_with_answer(format: ReasoningFormat) -> bool:
    """Whether a completion is over once its answer is closed: not where prose, a wrapping tag or a box may follow."""
    return bool(format.answer_close) and not (format.prose or any(format.wrap) or format.answer_close == "}")


def is_closed(parsed: Parsed) -> bool:
    """Whether anything follows the answer, so that it cannot have been cut off in the middle."""
    return parsed.answer_span is not None and parsed.answer_span[1] < len(parsed.text.rstrip())
