"""One pass over a text's tags: where thinking opens and closes, and which answers stand outside it.

The pattern is an alternation of literals, so it can't backtrack, and every handler takes constant time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from balanced_thinking.segments.formats import ReasoningFormat

END_OF_TURN = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|end|>",
    "<|user|>",  # GLM stops by opening the user's turn
    "</s>",
    "<eos>",
    "[EOS]",
    "<pad>",
    "<end_of_turn>",
    "<turn|>",
    "<｜end▁of▁sentence｜>",
)


class Block(NamedTuple):
    """Offsets of an answer: opening tag, content [inner_start, inner_end), closing tag up to `end`."""

    start: int
    inner_start: int
    inner_end: int
    end: int


class Scan:
    """What one pass over the tags finds: the thinking block's borders, the answers outside it, misplaced tags.

    `state` is "outside", "think" or "answer". Formats without a closing think tag never enter "think": all that stands
    before their last answer is reasoning.
    """

    def __init__(self, text: str, fmt: ReasoningFormat) -> None:
        self.text, self.fmt = text, fmt
        self.state = "outside"
        self.opened: tuple[int, int] | None = None  # the tag that opened the first thinking; (0, 0) if the template did
        self.closes: list[tuple[int, int]] = []
        self.answers: list[Block] = []
        self.answer_tag = (0, 0)
        self.depth = 0  # braces open inside the current answer
        self.problems: set[str] = set()
        self._run()
        self.answer = self._final_answer()
        self.close = self._last_close()
        self.border = self._answer_border()

    def _run(self) -> None:
        tags, pattern = _compiled(self.fmt)
        handlers = {
            "think_open": self._think_open,
            "think_close": self._think_close,
            "answer_open": self._answer_open,
            "answer_close": self._answer_close,
            "brace": self._brace,
        }
        for match in pattern.finditer(self.text):
            handler = handlers.get(tags[match.group()])
            if handler is not None:
                handler(match.span())
        self._end()

    def _think_open(self, tag: tuple[int, int]) -> None:
        if self.state != "outside":
            self.problems.add("nested_tag")
            return
        if self.opened is None:
            self.opened = tag
        elif not self.fmt.stages:
            self.problems.add("multiple_thinks")
        if self.fmt.think_close:
            self.state = "think"

    def _think_close(self, tag: tuple[int, int]) -> None:
        if self.opened is None:
            self._open_at_start()
        elif self.state != "think":
            self.problems.add("nested_tag")
        if self.state == "answer":
            return
        self.closes.append(tag)
        self.state = "outside"

    def _open_at_start(self) -> None:
        """A closing tag alone: all before it was thinking, and answers in it were drafts."""
        self.opened = (0, 0)
        if not self.fmt.open_optional:
            self.problems.add("missing_open_think")
        if self.answers or self.state == "answer":
            self.answers.clear()
            self.problems.add("answer_inside_think")
        self.state = "think"

    def _answer_open(self, tag: tuple[int, int]) -> None:
        if self.state == "think":
            self.problems.add("answer_inside_think")
            return
        if self.state == "answer" and self.fmt.answer_close:
            self.problems.add("nested_tag")
        elif self.state == "answer":
            self._add_answer((tag[0], tag[0]))
        self.state, self.answer_tag, self.depth = "answer", tag, 0

    def _answer_close(self, tag: tuple[int, int]) -> None:
        if self.state != "answer":
            return
        if self.depth:
            self.depth -= 1
        else:
            self._add_answer(tag)
            self.state = "outside"

    def _brace(self, _: tuple[int, int]) -> None:
        self.depth += 1

    def _add_answer(self, close: tuple[int, int]) -> None:
        self.answers.append(Block(*self.answer_tag, *close))

    def _end(self) -> None:
        if self.state == "answer":
            self._add_answer((len(self.text), len(self.text)))
            if self.fmt.answer_close:
                self.problems.add("unclosed_answer")
        elif self.opened is None and not self.answers and self.fmt.open_optional and self.fmt.think_close:
            # The template opened the thinking and the text ends inside it.
            self.opened, self.state = (0, 0), "think"
        if self.state == "think":
            self.problems.add("unclosed_think")

    def _final_answer(self) -> Block | None:
        """The last answer outside thinking; for a free answer all that follows the thinking."""
        if self.fmt.answer_open:
            return self.answers[-1] if self.answers else None
        if self.state == "think":
            return None
        start = self.closes[-1][1] if self.closes else 0
        return Block(start, start, len(self.text), len(self.text))

    def _last_close(self) -> tuple[int, int] | None:
        """The last closing think tag before the answer."""
        limit = self.answer.start if self.answer else len(self.text)
        if self.answer is None and self.state == "think":
            return None
        return next((close for close in reversed(self.closes) if close[1] <= limit), None)

    def _answer_border(self) -> int:
        if self.answer is None:
            return len(self.text)
        if self.fmt.prose:
            return self.close[1] if self.close else 0
        return self.answer.start


@lru_cache(maxsize=64)
def _compiled(fmt: ReasoningFormat) -> tuple[dict[str, str], re.Pattern[str]]:
    tags = fmt.tags()
    return tags, _alternation(tags)


@lru_cache(maxsize=64)
def think_tags(fmt: ReasoningFormat) -> re.Pattern[str]:
    """Matches the format's thinking tags alone."""
    return _alternation(tag for tag, kind in fmt.tags().items() if kind.startswith("think"))


def _alternation(tags: Iterable[str]) -> re.Pattern[str]:
    # Longest first, should one tag begin like another; with no tag at all, a pattern that never matches.
    return re.compile("|".join(re.escape(tag) for tag in sorted(tags, key=len, reverse=True)) or r"(?!)")


def content(text: str, start: int, end: int) -> tuple[int, int]:
    """[start, end) without outer white space and, at the text's end, without end-of-turn tokens."""
    at_end = end == len(text)
    while end > start:
        if text[end - 1].isspace():
            end -= 1
        elif at_end and text.endswith(END_OF_TURN, start, end):
            end -= next(len(token) for token in END_OF_TURN if text.endswith(token, start, end))
        else:
            break
    while start < end and text[start].isspace():
        start += 1
    return start, end
