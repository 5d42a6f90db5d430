r"""Normalise an answer and compare two. Data checks and scorers read answers with the same code.

- These do not count: case, repeated white space, trailing `. , ; :`, openings such as "Final Answer:" or "The answer
  is", and quotes, brackets, markdown or LaTeX around the complete answer (`\boxed{}`, `\text{}`, `$...$`).
- A letter from A to H alone is an option: `B`, `(B)`, `b)`, `B.`, `option B` and `B. dog` are the same answer. A letter
  never matches another letter.
- With `choices`, a choice's text and its letter are the same answer. A letter with the text of another choice (`B. cat`
  where B is dog) is not an answer. If the choices are letters themselves, their texts have priority.
- Plain decimal numbers are compared as numbers: `12`, `12.0`, `+12`; `1,200`, `1200`. Exponents, fractions and units
  are not read: `5 %` is not `5`, `1/2` is not `0.5`, `5!` is not `5`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

_MAX_LAYERS = 8  # wrappers inside wrappers; limits the work on hostile text
_LATEX = re.compile(r"\\(?:boxed|text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox)\s*\{(.*)\}", re.DOTALL)
_PAIRS = (
    *((mark, mark) for mark in ("$$", "$", "***", "**", "*", "__", "_", "```", "`", '"', "'")),
    *(("“", "”"), ("‘", "’"), ("«", "»"), ("\\(", "\\)"), ("\\[", "\\]")),
)
_OPENING = re.compile(
    r"[*_]{0,2}(?:(?:so|thus|hence|therefore),?\s)?\s*(?:the\s)?\s*(?:(?:final|correct|right|best)\s)?\s*"
    r"(?:answer|option|choice)[*_]{0,2}\s*(?:is\b\s*:?|:|=)[*_]{0,2}\s*(?=\S)"
)
# "option b", "(b)", "b)", "b. dog", "(b). dog"; white space must follow a bare letter's dot or colon: not "e.g."
_OPTION = re.compile(
    r"(?:(?:option|choice|answer)\s+)?"
    r"(?:(?P<bare>[a-h])(?:[.:]\s+)?|(?:\((?P<round>[a-h])\)|\[(?P<square>[a-h])\]|(?P<half>[a-h])\))[.:]?\s*)"
    r"(?P<text>(?<=\s)\S.*|(?<=[)\].:])\S.*)?",
    re.DOTALL,
)
_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?", re.ASCII)


@dataclass(frozen=True)
class Answer:
    """A normalised answer: a letter, a text, or both (`b. dog`). `full` is the text with its letter."""

    full: str
    letter: str | None
    text: str | Decimal | None


def find_choice(answer: Answer, choices: Sequence[Answer]) -> int | None:
    """Index of the choice that an answer names by its text or letter; None if it names none, or two.

    A letter beyond H counts only alone, because `parse_answer` does not read it as an option.
    """
    full_texts = [choice.full for choice in choices]
    texts = [choice.full if choice.text is None else choice.text for choice in choices]
    if answer.full in full_texts:
        return full_texts.index(answer.full)
    by_text = texts.index(answer.text) if answer.text is not None and answer.text in texts else None
    letter = answer.letter or (answer.full if re.fullmatch("[i-z]", answer.full) else None)
    if letter is None:
        return by_text
    by_letter = ord(letter) - ord("a")
    return by_letter if by_letter < len(choices) and by_text in (None, by_letter) else None


def answers_match(a: Answer, b: Answer) -> bool:
    """Whether both have the same letter, or the same text without contradicting letters."""
    if a.letter and b.letter:
        return a.letter == b.letter and (a.text is None or b.text is None or a.text == b.text)
    return a.text is not None and a.text == b.text


def parse_answer(text: str) -> Answer:
    """Normalise an answer: remove what is wrapped around it, and separate an option's letter from its text."""
    full = _strip_around_answer(
        " ".join(unicodedata.normalize("NFC", text).casefold().replace("\N{MINUS SIGN}", "-").split())
    )
    option = _OPTION.fullmatch(full)
    if option is None:
        return Answer(full, None, _parse_if_number(full))
    letter = option["bare"] or option["round"] or option["square"] or option["half"]
    return Answer(
        full if option["text"] else letter,
        letter,
        _parse_if_number(_strip_around_answer(option["text"])) if option["text"] else None,
    )


def _parse_if_number(text: str) -> str | Decimal:
    """A plain number as Decimal, so that "1,200.0" equals "1200"; any other text as it is."""
    is_number = text[-1:].isdigit() and _NUMBER.fullmatch(text)
    return Decimal(text.replace(",", "")) if is_number else text


def _strip_around_answer(text: str) -> str:
    """Remove openings, wrappers and closing punctuation, one layer after the other."""
    for _ in range(_MAX_LAYERS):
        before = text
        text = _unwrap_once(text.strip().rstrip(".,;:。").rstrip())
        opening = _OPENING.match(text)
        text = text[opening.end() :] if opening else text
        if text == before:
            break
    return text


def _unwrap_once(text: str) -> str:
    latex = _LATEX.fullmatch(text)
    if latex and _has_balanced_braces(latex[1]):
        return latex[1]
    for left, right in _PAIRS:
        inner = text[len(left) : -len(right)]
        if inner and text == left + inner + right and left not in inner and right not in inner:
            return inner
    # "(4)" is 4, but "(3, 4)" is an interval or a point
    return text[1:-1] if re.fullmatch(r"\([^(),]+\)", text) else text


def _has_balanced_braces(text: str) -> bool:
    """Whether each closing brace has an opening one before it, so that the outermost pair belongs together."""
    depth = 0
    for character in text:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return False
    return depth == 0
