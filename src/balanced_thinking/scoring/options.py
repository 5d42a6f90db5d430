"""Options of a multiple-choice question in an answer: the letter with its text, and whether a second one follows."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

# Scripts without spaces do without one behind a mark: "A、...", "A．...".
_UNSPACED = "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"  # Thai to Hangul
# LaTeX commands that only say how their text looks.
TEXT_COMMANDS = "boxed|fbox|text|textbf|textit|textrm|textsf|mathrm|mathbf|mathit|mathsf|mbox|boldsymbol|bm"
_ALTERNATIVES = re.compile(r"\s+(?:or|and)\s+|\s*[,;/&|+]\s*")
# What may be between one option and the next; a full stop counts only after a word, not after an initial.
_LINK = r"(?:^|\b(?:or|and|und|oder|ou|et|y|o)\b|[,;/&|+\n]|(?<=[^\W\d_]{3})\.)\s*"
_FILLER = r"(?:(?:or|and|also|maybe|perhaps|possibly|even|either)\s+){0,2}(?:(?:the\s+)?(?:option|choice|answer)\s+)?"
# What comes between a letter and a reason for it.
_REASON = r"|,?\s+(?=(?:because|since|rather than|instead of)\b)|,\s+(?=not\b)"
# A correction, up to the letter that replaces the first: "No, wait, it is C".
_CORRECTION = r"\b(?:no|wait|actually|sorry|correction)\b[^\n]{0,40}?"

# "Vitamin B.", "Section D:": the letter belongs to the word.
_NAMED_BY_LETTERS = {
    "vitamin",
    "hepatitis",
    "section",
    "group",
    "plan",
    "type",
    "class",
    "grade",
    "team",
    "figure",
    "j",
}


class Option(NamedTuple):
    """A letter as it was written, and the text after it; empty where there is none."""

    letter: str
    text: str


class _Patterns(NamedTuple):
    """For letters up to one: an option, one whose letter is set off, and the label of a next option."""

    option: re.Pattern[str]
    set_off: re.Pattern[str]
    next_upper: re.Pattern[str]
    next_lower: re.Pattern[str]


@cache
def _patterns(last: str) -> _Patterns:
    letters = f"[a-{last}]"
    # "option b", "(b)", "b)", "b. dog", "(b). dog". White space must follow a bare letter's dot or colon: not "e.g.".
    option = (
        r"(?:(?:(?:option|choice|answer)\s+|the\s+letter\s+|letter\s+))?"
        rf"(?:(?P<bare>{letters})(?:[.:]\s+|[.:](?={_UNSPACED})|、\s*)?"
        rf"|(?-i:(?P<capital>{letters.upper()}))(?:\s+[-–—]\s+(?=[^\W\d_]{{2}})|\n{_REASON})"
        rf"|(?:\((?P<round>{letters})\)|\[(?P<square>{letters})\]|(?P<half>{letters})\))[.:]?\s*)"
        rf"(?P<text>(?<=[\s、])\S.*|(?<=[)\].:])\S.*)?"
    )
    # "**B.** dog", "\\boxed{B}: dog": the letter alone is set off.
    set_off = (
        rf"(?:(?P<mark>[*_]{{1,3}})(?:option\s+|choice\s+)?\(?(?P<marked>{letters})[).:]?(?P=mark)"
        rf"|\\(?:{TEXT_COMMANDS})\s*\{{\(?(?P<braced>{letters})[).:]*\s*\}})(?:[).:]?\s*$|(?:[).:]\s*|\s+)(?P<text>\S.*))"
    )
    flags = re.DOTALL | re.IGNORECASE
    return _Patterns(
        re.compile(option, flags), re.compile(set_off, flags), _next_option(letters.upper()), _next_option(letters)
    )


def match_option(text: str, last: str = "h") -> Option | None:
    """The option that a complete answer is; None for any other text. `last`: the last letter of an option."""
    patterns = _patterns(last)
    found = patterns.option.fullmatch(text)
    if found is None:
        apart = patterns.set_off.fullmatch(text)
        return Option(apart["marked"] or apart["braced"], apart["text"] or "") if apart else None
    letter = found["bare"] or found["capital"] or found["round"] or found["square"] or found["half"]
    return Option(letter, found["text"] or "")


def names_another_option(option: Option, last: str = "h") -> bool:
    """Whether the text goes on with the label of a second option: `dog or B. cat`, `or (B)`, `dog and B`.

    The labels must have the same case: `A. a dog or a cat` has one.
    """
    patterns = _patterns(last)
    pattern = patterns.next_upper if option.letter.isupper() else patterns.next_lower
    labels = (next(filter(None, found.groups())) for found in pattern.finditer(option.text))
    return _lists_options(option) or any(label != option.letter for label in labels)


def _lists_options(option: Option) -> bool:
    """Whether the following letters come as labels: `A. dog B. cat C. bird`, or of one word `A. dog B. cat`."""
    labels = [re.escape(chr(ord(option.letter) + step)) for step in (1, 2)]
    first, second = (re.compile(rf"(?:^|\s)\(?{label}[.):](?=\s|$)") for label in labels)
    found = first.search(option.text)
    if found is None or second.search(option.text, found.end()):
        return found is not None
    word = re.fullmatch(r"(?:([^\W_]+)\s*)?", option.text[: found.start()])
    return word is not None and (word[1] or "").casefold() not in _NAMED_BY_LETTERS


def split_alternatives(text: str) -> list[str]:
    """The parts of a list such as `dog or cat`."""
    return _ALTERNATIVES.split(text)


def _next_option(letters: str) -> re.Pattern[str]:
    """A label with its mark after a link, or the bare letter: as all of the text, or at its end after `or`, `and`."""
    marked = rf"\(({letters})\)|\[({letters})\]|({letters})\)|({letters})[.:](?=\s*$|\s+\w{{2}})"
    alone = rf"(?m:^)({letters})(?m:$)"
    trailing = rf"(?i:(?:\b(?:or|and)\b|&)\s*{_FILLER})({letters})$"
    listed = rf"(?:\(({letters})\)|\[({letters})\])\s+\w"  # "(A) dog (B) cat", not "(A) see panel (B)"
    concluded = rf"(?i:\b(?:answer|option|choice)\s+(?:is|would be|should be)\b\s*:?\s*)\(?({letters})\)?\W*$"
    corrected = rf"(?i:{_CORRECTION})(?<![\w'’])\(?({letters})\)?\W*$"
    return re.compile(f"(?i:{_LINK}{_FILLER})(?:{marked})|{alone}|{trailing}|{listed}|{concluded}|{corrected}")
