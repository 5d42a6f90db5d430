"""One pass over a text's tags: where thinking opens and closes, and which answers are outside it.

The pattern is an alternation of literals, so it cannot backtrack, and every handler takes constant time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
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
    "<\\s>",  # a slip in the chat template of LLaVA-NeXT-Mistral: characters, no token
    "<eos>",
    "[EOS]",
    "<pad>",
    "<end_of_turn>",
    "<turn|>",
    "<｜end▁of▁sentence｜>",
)


class AnswerBlock(NamedTuple):
    """Offsets of an answer: opening tag, content [inner_start, inner_end), closing tag up to `end`."""

    start: int
    inner_start: int
    inner_end: int
    end: int


class TagScan:
    """What one pass over the tags finds: the thinking block's borders, the answers outside it, misplaced tags.

    `state` is "outside", "think" or "answer". Formats without a closing think tag never enter "think": everything
    before their last answer is reasoning.
    """

    def __init__(self, text: str, fmt: ReasoningFormat, *, in_think: bool = False) -> None:
        self.text, self.fmt = text, fmt
        # The tag that opened the first thinking; (0, 0) if it is in the prompt.
        self.opened: tuple[int, int] | None = (0, 0) if in_think else None
        self.state = "think" if in_think and fmt.think_close else "outside"
        self.closes: list[tuple[int, int]] = []
        self.answers: list[AnswerBlock] = []
        self.answer_tag = (0, 0)
        self.depth = 0  # braces open inside the current answer
        self.problems: set[str] = set()
        self._scan_tags()
        self.answer = self._find_final_answer()
        self.close = self._find_last_close()
        self.border = self._find_answer_start()

    def _scan_tags(self) -> None:
        tags, pattern = _tag_kinds_and_pattern(self.fmt)
        handlers = {
            "think_open": self._open_think,
            "think_close": self._close_think,
            "answer_open": self._open_answer,
            "answer_close": self._close_answer,
            "brace": self._open_brace,
        }
        for match in pattern.finditer(self.text):
            handler = handlers.get(tags[match.group()])
            if handler is not None:
                handler(match.span())
        self._finish_scan()

    def _open_think(self, tag: tuple[int, int]) -> None:
        if self.state != "outside":
            self.problems.add("nested_tag")
            return
        if self.opened is None:
            self.opened = tag
        elif not self.fmt.stages:
            self.problems.add("multiple_thinks")
        if self.fmt.think_close:
            self.state = "think"

    def _close_think(self, tag: tuple[int, int]) -> None:
        if self.opened is None:
            self._start_think_at_zero()
        elif self.state != "think":
            self.problems.add("nested_tag")
        if self.state == "answer":
            return
        self.closes.append(tag)
        self.state = "outside"

    def _start_think_at_zero(self) -> None:
        """A closing tag without an opening one: all text before it was thinking, and answers in it were drafts."""
        self.opened = (0, 0)
        if not self.fmt.open_optional:
            self.problems.add("missing_open_think")
        if self.answers or self.state == "answer":
            self.answers.clear()
            self.problems.add("answer_inside_think")
        self.state = "think"

    def _open_answer(self, tag: tuple[int, int]) -> None:
        if self.state == "think":
            self.problems.add("answer_inside_think")
            return
        if self.state == "answer" and self.fmt.answer_close:
            self.problems.add("nested_tag")
        elif self.state == "answer":
            self._add_answer((tag[0], tag[0]))
        self.state, self.answer_tag, self.depth = "answer", tag, 0

    def _close_answer(self, tag: tuple[int, int]) -> None:
        if self.state != "answer":
            return
        if self.depth:
            self.depth -= 1
        else:
            self._add_answer(tag)
            self.state = "outside"

    def _open_brace(self, _: tuple[int, int]) -> None:
        self.depth += 1

    def _add_answer(self, close: tuple[int, int]) -> None:
        self.answers.append(AnswerBlock(*self.answer_tag, *close))

    def _finish_scan(self) -> None:
        if self.state == "answer":
            self._add_answer((len(self.text), len(self.text)))
            if self.fmt.answer_close:
                self.problems.add("unclosed_answer")
        elif self.opened is None and not self.answers and self.fmt.open_optional and self.fmt.think_close:
            # The template opened the thinking and the text ends inside it.
            self.opened, self.state = (0, 0), "think"
        if self.state == "think":
            self.problems.add("unclosed_think")

    def _find_final_answer(self) -> AnswerBlock | None:
        """The last answer outside thinking; in a format without answer tags, all text after the thinking."""
        if self.fmt.answer_open:
            return self.answers[-1] if self.answers else None
        if self.state == "think":
            return None
        start = self.closes[-1][1] if self.closes else 0
        return AnswerBlock(start, start, len(self.text), len(self.text))

    def _find_last_close(self) -> tuple[int, int] | None:
        """The last closing think tag before the answer."""
        limit = self.answer.start if self.answer else len(self.text)
        if self.answer is None and self.state == "think":
            return None
        return next((close for close in reversed(self.closes) if close[1] <= limit), None)

    def _find_answer_start(self) -> int:
        if self.answer is None:
            return len(self.text)
        if self.fmt.prose:
            return self.close[1] if self.close else 0
        return self.answer.start


@lru_cache(maxsize=64)
def _tag_kinds_and_pattern(fmt: ReasoningFormat) -> tuple[Mapping[str, str], re.Pattern[str]]:
    tags = fmt.tag_kinds
    return tags, compile_any_of(tags)


@lru_cache(maxsize=64)
def think_tag_pattern(fmt: ReasoningFormat) -> re.Pattern[str]:
    """Matches the format's thinking tags only."""
    return compile_any_of(tag for tag, kind in fmt.tag_kinds.items() if kind.startswith("think"))


def compile_any_of(tags: Iterable[str]) -> re.Pattern[str]:
    # Longest first, because one tag may begin like another. Without any tag: a pattern that never matches.
    return re.compile("|".join(re.escape(tag) for tag in sorted(tags, key=len, reverse=True)) or r"(?!)")


def strip_space_and_turn_end(text: str, start: int, end: int) -> tuple[int, int]:
    """[start, end) without outer white space and, at the end of the text, without end-of-turn tokens."""
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
