"""Options of a multiple-choice question in an answer: the letter with its text, and whether a second one follows."""

from __future__ import annotations

import re
from typing import NamedTuple

# "option b", "(b)", "b)", "b. dog", "(b). dog". White space must follow a bare letter's dot or colon: not "e.g.".
# Scripts without spaces do without: "A、...", "A．...".
_UNSPACED = "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"  # Thai to Hangul
_OPTION = re.compile(
    r"(?:(?:option|choice|answer)\s+)?"
    rf"(?:(?P<bare>[a-h])(?:[.:]\s+|[.:](?={_UNSPACED})|、\s*)?"
    r"|(?:\((?P<round>[a-h])\)|\[(?P<square>[a-h])\]|(?P<half>[a-h])\))[.:]?\s*)"
    rf"(?P<text>(?<=[\s、])\S.*|(?<=[)\].:])\S.*)?",
    re.DOTALL | re.IGNORECASE,
)
# LaTeX commands that only say how their text looks.
TEXT_COMMANDS = "boxed|fbox|text|textbf|textit|textrm|textsf|mathrm|mathbf|mathit|mathsf|mbox|boldsymbol|bm"
# "**B.** dog", "\\boxed{B}: dog": the letter alone is set off.
_SET_OFF = re.compile(
    r"(?:(?P<mark>[*_]{1,3})\(?(?P<marked>[a-h])[).:]?(?P=mark)"
    rf"|\\(?:{TEXT_COMMANDS})\s*\{{\(?(?P<braced>[a-h])[).:]?\}})(?:[).:]?\s*$|(?:[).:]\s*|\s+)(?P<text>\S.*))",
    re.DOTALL | re.IGNORECASE,
)
_ALTERNATIVES = re.compile(r"\s+(?:or|and)\s+|\s*[,;/&|+]\s*")
# What may be between one option and the next; a full stop counts only after a word, not after an initial.
_LINK = r"(?:^|\b(?:or|and|und|oder|ou|et|y|o)\b|[,;/&|+\n]|(?<=[^\W\d_]{3})\.)\s*"
_FILLER = r"(?:(?:or|and|also|maybe|perhaps|possibly|even|either)\s+){0,2}(?:(?:the\s+)?(?:option|choice|answer)\s+)?"


class Option(NamedTuple):
    """A letter as it was written, and the text after it; empty where there is none."""

    letter: str
    text: str


def match_option(text: str) -> Option | None:
    """The option that a complete answer is; None for any other text."""
    found = _OPTION.fullmatch(text)
    if found is None:
        apart = _SET_OFF.fullmatch(text)
        return Option(apart["marked"] or apart["braced"], apart["text"] or "") if apart else None
    return Option(found["bare"] or found["round"] or found["square"] or found["half"], found["text"] or "")


def names_another_option(option: Option) -> bool:
    """Whether the text goes on with the label of a second option: `dog or B. cat`, `or (B)`, `dog and B`.

    The labels must have the same case: `A. a dog or a cat` has one.
    """
    pattern = _NEXT_UPPER if option.letter.isupper() else _NEXT_LOWER
    labels = (next(filter(None, found.groups())) for found in pattern.finditer(option.text))
    return any(label != option.letter for label in labels)


def split_alternatives(text: str) -> list[str]:
    """The parts of a list such as `dog or cat`."""
    return _ALTERNATIVES.split(text)


def _next_option(letters: str) -> re.Pattern[str]:
    """A label with its mark after a link, or the bare letter: as all of the text, or at its end after `or`, `and`."""
    marked = rf"\(({letters})\)|\[({letters})\]|({letters})\)|({letters})[.:](?=\s*$|\s+\w{{2}})"
    alone = rf"^({letters})$"
    trailing = rf"(?i:(?:\b(?:or|and)\b|&)\s*{_FILLER})({letters})$"
    listed = rf"(?:\(({letters})\)|\[({letters})\])\s+\w"  # "(A) dog (B) cat", not "(A) see panel (B)"
    return re.compile(f"(?i:{_LINK}{_FILLER})(?:{marked})|{alone}|{trailing}|{listed}")


_NEXT_UPPER, _NEXT_LOWER = _next_option("[A-H]"), _next_option("[a-h]")
