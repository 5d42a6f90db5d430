r"""Normalise an answer and compare two. Data checks and scorers read answers with the same code.

- These do not count: case, repeated white space, trailing `. , ; :`, openings such as "Final Answer:" or "The answer
  is", and quotes, brackets, markdown or LaTeX around the complete answer (`\boxed{}`, `\text{}`, `$...$`).
- Widths and scripts do not count either: `Ｂ` is `B`, `－３` is `-3`, `٢٧٪` is `27%` (`characters`).
- An answer that is only punctuation stays as it is: `.` is not `,`.
- The last `\boxed{}` counts where it stands apart; what is beside a box (`-\boxed{5}`) counts too. A line such as
  "Final Answer" before the answer does not.
- White space beside punctuation does not count: `(3,4)` is `(3, 4)`. But `1, 200` is not `1,200`.
- A letter from A to H alone, and up to that of the last choice, is an option: `B`, `(B)`, `b)`, `B.`, `option B`, `B is
  correct` and `B. dog` are the same answer. A letter never matches another letter.
- With `choices`, a choice's text and its letter are the same answer, and both in any order: `cat (B)`. A letter with
  the text of another choice (`B. cat` where B is dog) is not an answer. If the choices are letters themselves, their
  texts have priority. Case counts between choices that differ in it alone (`AA`, `Aa`, `aa`).
- Not counted either: an article before a text (`the dog`), and the reason after a letter (`B because ...`).
- Two options are not an answer (`A or B`, `A. dog or B. cat`), unless a choice has exactly this text.
- Plain decimal numbers are compared as numbers: `12`, `12.0`, `+12`; `1,200`, `1200`. Exponents, fractions and units
  are not read: `5 %` is not `5`, `1/2` is not `0.5`, `5!` is not `5`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from balanced_thinking.scoring.characters import to_plain_characters
from balanced_thinking.scoring.options import match_option, names_another_option, split_alternatives
from balanced_thinking.scoring.wrappers import collapse_white_space, strip_around_answer, strip_plain

_LETTERS, _ALPHABET = 8, 26  # of options: A to H at least
_LONGEST_OPTION = 500  # characters, of a letter and a text in any order
# White space that says nothing in a comparison: beside punctuation, before a LaTeX command, in `5:30 PM`.
_LOOSE = re.compile(r"(?<=\d)(,\s)(?=\d{3}(?!\d))|\s*([,;:=+*/^(){}\[\]<>|-])\s*|\s+(?=\\)|(?<=\d)\s+(?=[ap]\.?m\b)")
# A letter with the text of its choice, in the ways that only the choices make sure of: `b cat`, `b - cat`, `cat (b)`.
_LETTER_AND_TEXT = (
    re.compile(
        r"[*_]*(?:option |choice |answer )?[*_(\[]*(?P<letter>[a-z])(?![a-z])[\s*_.,:;/)\]=-]*\(?(?P<text>.+?)\)?"
    ),
    re.compile(r"(?P<text>.+?)[\s,;:.-]*[(\[](?:option |choice )?(?P<letter>[a-z])[)\]]"),
)
_ARTICLE = re.compile(r"(?:[Tt]he|[Aa]n|a)\s(?=\w\w)")  # "A dog" may be the letter
_GROUPED = r"\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})+,\d{3}"  # by thousands; by hundreds as in India
_NUMBER = re.compile(rf"[+-]?(?:{_GROUPED}|\d+)?(?:\.\d+)?", re.ASCII)
_PERCENT = re.compile(r"([+-]?)(?:%\s*([\d.,]*\d)|([\d.,]*\d)\s*%)", re.ASCII)


@dataclass(frozen=True)
class Answer:
    """A normalised answer: a letter, a text, or both (`b. dog`). `full` is the text with its letter, `raw` what was
    written, on one line: choices may differ in what is left out (`What a game.`, `What a game?`). `cased` is the text
    without its letter, in the case that it was written in.

    `several`: the text goes on with another option (`a. dog or b. cat`), so the letter alone says nothing.
    """

    full: str
    letter: str | None
    text: str | Decimal | None
    several: bool = False
    raw: str = ""
    cased: str = ""


def find_choice(answer: Answer, choices: Sequence[Answer]) -> int | None:
    """Index of the choice that an answer names by its text or letter; None if it names none, or two."""
    full_texts = [_tighten(choice.full) for choice in choices]
    texts = [_tighten(choice.full if choice.text is None else choice.text) for choice in choices]
    full, text = _tighten(answer.full), _tighten(answer.text)
    for key, keys in ((answer.raw, [choice.raw for choice in choices]), (full, full_texts)):
        if key in keys:
            return next(iter(_find_same(key, keys, answer, choices)), None)
    same = [] if text is None else _find_same(text, texts, answer, choices)
    by_text = same[0] if same else _find_by_both(answer.full, texts)
    if by_text is None:
        plain, all_plain = _drop_article(answer), [_drop_article(choice) for choice in choices]
        by_text = all_plain.index(plain) if plain and all_plain.count(plain) == 1 else None
    letter = answer.letter
    if letter is None:
        return by_text
    by_letter = ord(letter) - ord("a")
    if by_letter in same:
        return by_letter
    if by_text is None and (answer.several or _names_two_texts(answer.text, texts)):
        return None
    return by_letter if by_letter < len(choices) and by_text in (None, by_letter) else None


_Key = str | Decimal | None


def _find_same(key: _Key, keys: Sequence[_Key], answer: Answer, choices: Sequence[Answer]) -> list[int]:
    """The indices of the choices with this key; where they differ in case alone, of those in the answer's case."""
    same = [index for index, other in enumerate(keys) if other == key]
    if len({choices[index].cased for index in same}) > 1:
        same = [index for index in same if choices[index].cased == answer.cased]
    return same


def answers_match(a: Answer, b: Answer) -> bool:
    """Whether both have the same letter, or the same text without contradicting letters."""
    if a.letter and b.letter:
        either = not (a.several or b.several) and (_is_empty(a.text) or _is_empty(b.text))
        return a.letter == b.letter and (either or _tighten(a.text) == _tighten(b.text))
    same = a.text is not None and _tighten(a.text) == _tighten(b.text)
    return same or (bool(_drop_article(a)) and _drop_article(a) == _drop_article(b))


def same_wording(a: Answer, b: Answer) -> bool:
    """Whether both are the same text, apart from white space beside punctuation."""
    return _tighten(a.full) == _tighten(b.full)


def parse_answer(text: str, choices: int = 0) -> Answer:
    """Normalise an answer: remove what is wrapped around it, and separate an option's letter from its text.

    `choices`: how many there are. Letters up to the last of them are options, but at least those up to H.
    """
    last = chr(ord("a") + min(max(choices, _LETTERS), _ALPHABET) - 1)
    plain = collapse_white_space(to_plain_characters(text))
    stripped, raw = strip_plain(plain), _to_one_line(unicodedata.normalize("NFC", text))
    full, cased = _to_one_line(stripped), " ".join(stripped.split())
    if not _has_alphanumeric(plain):
        return Answer(raw, None, full, raw=raw, cased=cased)
    option = match_option(stripped, last)
    if option is None:
        return Answer(full, None, _parse_if_number(full), raw=raw, cased=cased)
    letter = option.letter.casefold()
    if not option.text:
        mark = re.search(r"\s(\S)$", plain)  # "A. ;" is an option whose text is a semicolon
        text_of_mark = mark[1] if mark and not _has_alphanumeric(mark[1]) else None
        return Answer(letter, letter, text_of_mark, raw=raw, cased=cased)
    text_alone = strip_around_answer(option.text)
    number_or_text = _parse_if_number(_to_one_line(text_alone))
    several, cased = names_another_option(option, last), " ".join(text_alone.split())
    return Answer(full, letter, number_or_text, several, raw, cased)


def _find_by_both(full: str, texts: Sequence[str | Decimal | None]) -> int | None:
    """The choice that is named by its letter and its text, whatever is between them."""
    for pattern in _LETTER_AND_TEXT if len(full) <= _LONGEST_OPTION else ():
        found = pattern.fullmatch(full)
        index = ord(found["letter"]) - ord("a") if found else len(texts)
        if found and index < len(texts) and _tighten(_parse_if_number(found["text"])) == texts[index]:
            return index
    return None


def _has_alphanumeric(text: str) -> bool:
    return any(map(str.isalnum, text))


def _drop_article(answer: Answer) -> str:
    """The text without `a`, `an` or `the` before it: `a dog` is `dog`. Empty where it is a letter alone or a number."""
    if not isinstance(answer.text, str):
        return ""
    return str(_tighten(_ARTICLE.sub("", answer.cased, count=1).casefold()))


def _is_empty(text: str | Decimal | None) -> bool:
    """Whether an option's text says nothing beside its letter: none, or only punctuation."""
    return text is None or (isinstance(text, str) and not _has_alphanumeric(text))


def _to_one_line(text: str) -> str:
    """The text in lower case on one line; a percentage in one spelling."""
    line = " ".join(text.casefold().split())
    percent = _PERCENT.fullmatch(line)
    return f"{percent[1]}{percent[2] or percent[3]}%" if percent else line


def _tighten(text: str | Decimal | None) -> str | Decimal | None:
    """A text without white space that says nothing. A list of numbers stays one: `1, 200`."""
    if not isinstance(text, str):
        return text
    tight = _LOOSE.sub(lambda found: found[1] or found[2] or "", text)
    return text if _NUMBER.fullmatch(tight) else tight


def _names_two_texts(text: str | Decimal | None, choices: Sequence[str | Decimal | None]) -> bool:
    """Whether a text that is no choice lists two of them: `dog or cat`."""
    parts = split_alternatives(text) if isinstance(text, str) else []
    return len({part for part in map(_tighten, map(_parse_if_number, parts)) if part in choices}) > 1


def _parse_if_number(text: str) -> str | Decimal:
    """A plain number as Decimal, so that "1,200.0" equals "1200"; any other text as it is."""
    is_number = text[-1:].isdigit() and _NUMBER.fullmatch(text)
    return Decimal(text.replace(",", "")) if is_number else text
