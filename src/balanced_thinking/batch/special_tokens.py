"""Special tokens that stand as text in a row. A tokenizer makes the token itself of them: the end of a turn, a picture.

Then the model reads a turn that ends in the middle, learns to stop inside its reasoning, or misses a picture.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from balanced_thinking.models.processor_parts import tokenizer_of
from balanced_thinking.segments import FORMATS, ReasoningFormat
from balanced_thinking.segments.scan import END_OF_TURN

_CONTROL = re.compile(r"<[|｜][^\s<>]*[|｜]>")  # how control tokens are written, also where they are not marked special
_PROCESSOR_NAMES = ("_token", "_tag")  # ends of the attributes under which processors keep their placeholders


class FoundToken(NamedTuple):
    """A special token in a text, at this offset in characters."""

    token: str
    start: int


class SpecialTokens:
    """The special tokens of a processor, and where they are in texts.

    Args:
        processor: the model's processor, or its tokenizer.
        format: its tags are no fault, although they may be special tokens, or have one in them.
    """

    def __init__(self, processor: Any, format: ReasoningFormat | None = None) -> None:
        self.tokens = frozenset(special_token_texts(processor))
        lengths = defaultdict(set)
        for token in self.tokens:
            lengths[token[0]].add(len(token))
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}
        # One character is searched for instead of thousands of tokens (Gemma has 6,000 of them).
        self._first = re.compile("|".join(map(re.escape, sorted(self._lengths))) or r"(?!)")
        tags = set() if format is None else _tags_of(format)
        self._tags = {token: [(tag, tag.index(token)) for tag in tags if token in tag] for token in self.tokens}

    def find_all(self, text: str) -> Iterator[FoundToken]:
        """All of them in the text, in order; the longest where one begins like another."""
        end = 0
        for match in self._first.finditer(text):
            start = match.start()
            for length in self._lengths[match.group()] if start >= end else ():
                if (token := text[start : start + length]) in self.tokens:
                    end = start + length
                    if not any(text.startswith(tag, start - offset) for tag, offset in self._tags[token]):
                        yield FoundToken(token, start)
                    break

    def find_first(self, text: str) -> FoundToken | None:
        """The first of them in the text."""
        return next(self.find_all(text), None)


def special_token_texts(processor: Any) -> set[str]:
    """All special tokens as text: the tokenizer's, and the placeholders that the processor replaces."""
    tokenizer = tokenizer_of(processor)
    added = [token for token in tokenizer.added_tokens_decoder.values() if token.special or is_control(token.content)]
    found = {*tokenizer.all_special_tokens, *(token.content for token in added)}
    if processor is not tokenizer:
        values = (value for name, value in vars(processor).items() if name.endswith(_PROCESSOR_NAMES))
        found |= {text for value in values if isinstance(text := getattr(value, "content", value), str)}
    return {text for text in found if len(text.strip()) > 1}  # a sign alone ("!" pads some models) is text, too


def is_control(text: str) -> bool:
    """Whether an added token is for control although its tokenizer does not mark it as special."""
    return text in END_OF_TURN or _CONTROL.fullmatch(text) is not None


def _tags_of(format: ReasoningFormat) -> set[str]:
    formats: Collection[ReasoningFormat] = FORMATS.values() if format.name == "auto" else (format,)
    return {tag for one in formats for tag in (*one.tag_kinds, *one.wrap) if tag}
