"""What a prompt has opened already: many chat templates end the prompt with `<think>`, so the model only closes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from balanced_thinking.segments.formats import FORMATS, ReasoningFormat, get_format
from balanced_thinking.segments.scan import compile_any_of

_LONGEST_END = 200  # characters of an opened or empty block of thinking with its white space


class PromptEnd(NamedTuple):
    """A prompt without the thinking that it begins, and that beginning: "", an open tag, or an empty block."""

    before: str
    block: str
    opened: bool


class Opening(NamedTuple):
    """A text that begins with an opening tag: what follows the tag, and what follows an empty block, if it is one."""

    rest: str
    after_empty_block: str | None


def find_opened(
    prompt: str, format: str | Mapping[str, Any] | ReasoningFormat = "think-answer", *, header: str = ""
) -> str:
    """The opening tag of thinking, and what follows it, at the end of a prompt; "" where nothing is open.

    A block that the prompt also closes is not open. `header` is the end of the prompt that the chat template wrote,
    after the last message's text: words that it puts after the tag are found in it.
    """
    fmt = get_format(format)
    end = _find_end(prompt, fmt)
    if end is not None:
        return prompt[end.start() :] if end["closed"] is None else ""
    if header and prompt.endswith(header) and opens_thinking(header, fmt):
        *_, last = _open_pattern(fmt).finditer(header)
        return header[last.start() :]
    return ""


def split_prompt_end(prompt: str, format: ReasoningFormat) -> PromptEnd:
    """Separate the thinking that a prompt begins, in the tags of this format or of a built-in one."""
    end = _find_end(prompt, format) or _find_end(prompt, FORMATS["auto"])
    if end is None:
        return PromptEnd(prompt, "", opened=False)
    return PromptEnd(prompt[: end.start()], end.group(), opened=end["closed"] is None)


def split_opening_tag(text: str, format: ReasoningFormat) -> Opening | None:
    """Take the opening tag of thinking, and white space after it, off a text's start; None if there is no such tag."""
    found = _start_pattern(format).match(text) or _start_pattern(FORMATS["auto"]).match(text)
    if found is None:
        return None
    return Opening(text[found.end("open") :], None if found["closed"] is None else text[found.end() :])


def closes_thinking(text: str) -> bool:
    """Whether a closing tag of any built-in format is in the text."""
    return any(tag in text for tag in _tags_of(FORMATS["auto"], "think_close"))


def remove_tags(text: str, format: ReasoningFormat) -> str:
    """The text without the format's thinking tags."""
    return _think_tag_pattern(format).sub(" ", text)


def _find_end(prompt: str, fmt: ReasoningFormat) -> re.Match[str] | None:
    return _end_pattern(fmt).search(prompt, max(0, len(prompt) - _LONGEST_END))


@lru_cache(maxsize=256)
def opens_thinking(text: str, fmt: ReasoningFormat) -> bool:
    """Whether the last thinking tag in the text is one that opens."""
    tags = _think_tag_pattern(fmt).findall(text)
    return bool(tags) and tags[-1] in _tags_of(fmt, "think_open")


@lru_cache(maxsize=64)
def _think_tag_pattern(fmt: ReasoningFormat) -> re.Pattern[str]:
    return compile_any_of(_tags_of(fmt, "think_open") | _tags_of(fmt, "think_close"))


@lru_cache(maxsize=64)
def _end_pattern(fmt: ReasoningFormat) -> re.Pattern[str]:
    """An opening tag, perhaps with its closing one, and white space at the end of a text."""
    opening, closing = _any_of(fmt, "think_open"), _any_of(fmt, "think_close")
    return re.compile(rf"(?:{opening})\s*(?P<closed>(?:{closing})\s*)?\Z")


@lru_cache(maxsize=64)
def _start_pattern(fmt: ReasoningFormat) -> re.Pattern[str]:
    opening, closing = _any_of(fmt, "think_open"), _any_of(fmt, "think_close")
    return re.compile(rf"\s*(?P<open>(?:{opening})\s*)(?P<closed>(?:{closing})\s*)?")


@lru_cache(maxsize=64)
def _open_pattern(fmt: ReasoningFormat) -> re.Pattern[str]:
    return re.compile(_any_of(fmt, "think_open"))


def _any_of(fmt: ReasoningFormat, wanted: str) -> str:
    return compile_any_of(_tags_of(fmt, wanted)).pattern


@lru_cache(maxsize=64)
def _tags_of(fmt: ReasoningFormat, wanted: str) -> frozenset[str]:
    """The format's tags of one kind; of "auto" those of every built-in format."""
    formats = FORMATS.values() if fmt.name == "auto" else (fmt,)
    return frozenset(tag for one in formats for tag, kind in one.tag_kinds.items() if kind == wanted)
