"""A generated completion: its segments, whether its answer is complete, whether the turn has ended."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from balanced_thinking.segments import Parsed, ReasoningFormat, generated_segments, parse

_MOST_ENDS = 8  # closing tags that are tried: a text of nothing else would take long


class Completion(NamedTuple):
    """What was generated. `segments` has one entry per token, without the stop token; `stopped`: there was one."""

    parsed: Parsed
    segments: list[int]
    stopped: bool


class WithheldCompletion(list[int]):
    """The ids of a completion that its server did not finish for a reason other than the limit of tokens.

    `reason` is a name such as `content_filter` or `refusal`; `said` is what the server wrote about it.
    """

    def __init__(self, ids: Iterable[int], reason: str, said: str = "") -> None:
        super().__init__(ids)
        self.reason, self.said = reason, said


def parse_completion(
    ids: Sequence[int], stops: Collection[int], tokenizer: Any, format: ReasoningFormat, *, opened: str = ""
) -> Completion:
    """Parse generated token ids. A last id among `stops` is left out of the text and the segments.

    `opened` is what the prompt had opened, as `find_opened` returns it.
    """
    stopped = bool(ids) and ids[-1] in stops
    return Completion(*generated_segments(ids[: len(ids) - stopped], tokenizer, format, opened=opened), stopped)


def is_answer_complete(parsed: Parsed, stopped: bool) -> bool:
    """Whether the turn has ended or text follows the answer. Else `12` may have been cut to `1`.

    Text after a box is more reasoning, which may end in another box, so a turn that was cut off there has no answer.
    """
    goes_on = parsed.free_reasoning and "text_after_answer" in parsed.problems
    return stopped or (has_text_after_answer(parsed) and not goes_on)


def cut_after_answer(parsed: Parsed, format: ReasoningFormat) -> Parsed:
    """The text up to its first well-formed answer, where an evaluation stops; all of it where there is none."""
    tag = format.answer_close if ends_with_answer_tag(format) else ""
    end = parsed.text.find(tag) if tag else -1
    for _ in range(_MOST_ENDS if tag else 0):
        if end < 0:
            break
        end += len(tag)
        cut = parse(parsed.text[:end], format, opened=parsed.opened)
        if cut.answer is not None and not cut.problems and has_text_after_answer(cut):
            return cut
        end = parsed.text.find(tag, end)
    return parsed


def ends_with_answer_tag(format: ReasoningFormat) -> bool:
    """Whether a completion ends with the tag that closes its answer.

    It does not where prose, a wrapping tag or the text around a box may follow.
    """
    return bool(format.answer_close) and not (format.prose or any(format.wrap) or format.answer_close == "}")


def has_text_after_answer(parsed: Parsed) -> bool:
    """Whether anything follows the answer, so that the answer was not cut off in the middle."""
    return parsed.answer_span is not None and parsed.answer_span[1] < len(parsed.text.rstrip())
