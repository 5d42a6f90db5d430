r"""What an answer says, whatever it is wrapped in. Checks of the data and scorers read answers alike.

- Case, runs of white space, trailing `. , ; :`, pairs of quotes, brackets, markdown or LaTeX around the whole
  (`\boxed{}`, `\text{}`, `$...$`) and openings such as "Final Answer:" or "The answer is" don't count.
- A letter from A to H alone is an option: `B`, `(B)`, `b)`, `B.`, `option B` and `B. dog` are one answer. A letter
  never matches another letter. With `choices`, a choice's text and its letter are one answer, and a letter with the
  text of another choice (`B. cat` where B is dog) is none. Where choices are letters, texts go before places.
- Plain decimal numbers are compared as numbers: `12`, `12.0`, `+12`; `1,200`, `1200`. No exponents, fractions or units:
  `5 %` is not `5`, `1/2` is not `0.5`, `5!` is not `5`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

_MAX_LAYERS = 8  # wrappers inside wrappers; bounds the work on hostile text
_LATEX = re.compile(r"\\(?:boxed|text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox)\s*\{(.*)\}", re.DOTALL)
_PAIRS = (
    *((mark, mark) for mark in ("$$", "$", "***", "**", "*", "__", "_", "```", "`", '"', "'")),
    *(("“", "”"), ("‘", "’"), ("«", "»"), ("\\(", "\\)"), ("\\[", "\\]")),
)
_OPENING = re.compile(
    r"[*_]{0,2}(?:(?:so|thus|hence|therefore),?\s)?\s*(?:the\s)?\s*(?:(?:final|correct|right|best)\s)?\s*"
    r"(?:answer|option|choice)[*_]{0,2}\s*(?:is\b\s*:?|:|=)[*_]{0,2}\s*(?=\S)"
)
# "option b", "(b)", "b)", "b. dog", "(b). dog"; after a bare letter's dot or colon white space must come: not "e.g."
_OPTION = re.compile(
    r"(?:(?:option|choice|answer)\s+)?"
    r"(?:(?P<bare>[a-h])(?:[.:]\s+)?|(?:\((?P<round>[a-h])\)|\[(?P<square>[a-h])\]|(?P<half>[a-h])\))[.:]?\s*)"
    r"(?P<text>(?<=\s)\S.*|(?<=[)\].:])\S.*)?",
    re.DOTALL,
)
_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?", re.ASCII)


@dataclass(frozen=True)
class Answer:
    """A normalised answer: a letter, a text, or both (`b. dog`). `whole` is the text with its letter."""

    whole: str
    letter: str | None
    text: str | Decimal | None


def place_of(answer: Answer, choices: Sequence[Answer]) -> int | None:
    """Which choice an answer names, by its text or its letter (any one alone where there are many choices); None where
    it names none, or two."""
    wholes = [choice.whole for choice in choices]
    texts = [choice.whole if choice.text is None else choice.text for choice in choices]
    if answer.whole in wholes:
        return wholes.index(answer.whole)
    by_text = texts.index(answer.text) if answer.text is not None and answer.text in texts else None
    letter = answer.letter or (answer.whole if re.fullmatch("[i-z]", answer.whole) else None)
    if letter is None:
        return by_text
    by_letter = ord(letter) - ord("a")
    return by_letter if by_letter < len(choices) and by_text in (None, by_letter) else None


def says_same(a: Answer, b: Answer) -> bool:
    """Whether both are one letter, or one text without the letters' contradicting it."""
    if a.letter and b.letter:
        return a.letter == b.letter and (a.text is None or b.text is None or a.text == b.text)
    return a.text is not None and a.text == b.text


def read_answer(text: str) -> Answer:
    """An answer without its wrapping."""
    whole = _bare(" ".join(unicodedata.normalize("NFC", text).casefold().replace("\N{MINUS SIGN}", "-").split()))
    option = _OPTION.fullmatch(whole)
    if option is None:
        return Answer(whole, None, _value(whole))
    letter = option["bare"] or option["round"] or option["square"] or option["half"]
    return Answer(
        whole if option["text"] else letter, letter, _value(_bare(option["text"])) if option["text"] else None
    )


def _value(text: str) -> str | Decimal:
    """A plain number as a number: "1,200.0" equals "1200"."""
    is_number = text[-1:].isdigit() and _NUMBER.fullmatch(text)
    return Decimal(text.replace(",", "")) if is_number else text


def _bare(text: str) -> str:
    """The text without openings, wrappers and closing punctuation, layer by layer."""
    for _ in range(_MAX_LAYERS):
        before = text
        text = _unwrapped(text.strip().rstrip(".,;:。").rstrip())
        opening = _OPENING.match(text)
        text = text[opening.end() :] if opening else text
        if text == before:
            break
    return text


def _unwrapped(text: str) -> str:
    latex = _LATEX.fullmatch(text)
    if latex and _balanced(latex[1]):
        return latex[1]
    for left, right in _PAIRS:
        inner = text[len(left) : -len(right)]
        if inner and text == left + inner + right and left not in inner and right not in inner:
            return inner
    # "(4)" is 4, but "(3, 4)" is an interval or a point
    return text[1:-1] if re.fullmatch(r"\([^(),]+\)", text) else text


def _balanced(text: str) -> bool:
    """Whether no closing brace lacks its opening one, so that the outermost pair belongs together."""
    depth = 0
    for character in text:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return False
    return depth == 0
