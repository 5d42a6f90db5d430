"""Which candidates for an answer a sentence names: options by letter or text, numbers, or words.

A candidate is named where its words stand side by side in the sentence, in any case and script (`characters`):

- `3` is named by `3`, `3.0` and `three`, but not by `36`, `3.5`, `1/3`, `3:30`, `3rd` or `R3`.
- A letter is named only where it is set off as an option: `(B)`, `**B**`, `option B`, `the answer is B`, or `B.` alone.
  The article in `A dog` is not one.
- `yes`, `no` and other frequent words are named only where they are an answer: `No, ...`, `... is no.`
- Of names inside longer ones (`purple` in `light purple`) the longest counts.
- Frequent endings of words do not count: `feels safe` names `feel safe`.
- In scripts without spaces between words, each character is one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

from balanced_thinking.scoring.characters import UNSPACED, to_plain_characters


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MARKS = "".join(chr(k) for k in range(0x300, 0x2000) if unicodedata.category(chr(k)).startswith("M"))  # of letters
_TOKEN = re.compile(
    r"(?P<number>(?<![\w.])\d+/\d+(?![\d/])|(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\d)\.\d+)"
    r"(?!(?:st|nd|rd|th)\b)"
    rf"|(?P<word>{UNSPACED}[{_MARKS}]*|(?!{UNSPACED})[^\W_](?:(?!{UNSPACED})[\w'’{_MARKS}])*)|(?P<sign>[^\w\s])"
)
_CLOCK = re.compile(r"\d+:\d\d\b")
_ABBREVIATIONS = "".join(rf"(?<!\b{word}\.)" for word in sorted(_words("Mr Mrs Ms Dr St vs sq ft approx")))
_SENTENCE_END = re.compile(rf"{_ABBREVIATIONS}(?<=[.!?])[\"'”’)\]*]*\s+|(?<=[。！？])|\n+")
_NUMBER_WORDS = {
    word: Fraction(value)
    for value, word in enumerate(
        re.findall(r"\w+", "zero one two three four five six seven eight nine ten eleven twelve")
    )
}
# Words that most sentences have: they are answers only where they stand by themselves.
_FREQUENT = _words(
    "yes no true false not none all both neither one a an i in on at by to of or and up down it he she we they is are "
    "was be do can will go 是 否 对 對 不 有"
)
_SKIPPED = _words("a an the only just exactly about approximately option choice letter answer called")
_SKIPPED_SIGNS = frozenset("$€£¥₹([{*'\"“-:")
_INTRODUCTIONS = _words("is are was were be being = ≈ equals equal makes make gives 是 为 為 选 選 は")
_LABELS = _words("option choice answer letter 项 項")
_BRACKETS = {"(": ")", "[": "]", "*": "*", "{": "}", "'": "'", '"': '"'}
_MAX_UNIT_WORDS = 2
_CLOSERS = frozenset(".,;:!?)]}*'\"”")
Key = Hashable


class Token(NamedTuple):
    """A number, a word in lower case, or a sign; `raw` as it was written. `value`: of a number."""

    text: str
    raw: str
    value: Fraction | None = None


class Candidate(NamedTuple):
    """An answer that a sentence may name: by the words of `texts`, or by `letter` (upper case) where it has one."""

    key: Key
    texts: tuple[str, ...]
    letter: str | None = None


class Mention(NamedTuple):
    """A candidate at the tokens `start` to `end` of a sentence; `introduced` by `is`, `=` and the like, or by ""."""

    key: Key
    start: int
    end: int
    introduced: str


class Number(NamedTuple):
    """A number in a sentence, read as a `Mention`."""

    value: Fraction
    mention: Mention


def last_sentence(text: str) -> str:
    """The last sentence, or line, that has a letter or a digit; empty where there is none."""
    pieces = [piece for piece in _SENTENCE_END.split(text) if any(map(str.isalnum, piece))]
    return pieces[-1].strip() if pieces else ""


def tokenize(text: str) -> list[Token]:
    """The words, numbers and signs of a text."""
    plain = _CLOCK.sub(" ", to_plain_characters(text)).replace("。", ".")
    return [_to_token(found) for found in _TOKEN.finditer(plain)]


def _to_token(found: re.Match[str]) -> Token:
    raw = found[0]
    if found["number"] and not raw.endswith("/0"):
        value = Fraction(raw.replace(",", ""))
        return Token(str(value), raw, value)
    folded = raw.casefold()
    return Token(folded, raw, _NUMBER_WORDS.get(folded))


def find_mentions(sentence: str, candidates: Iterable[Candidate]) -> list[Mention]:
    """Where a sentence names candidates, in its order; of overlapping mentions the longest."""
    tokens = tokenize(sentence)
    stems = [_stem(token) for token in tokens]
    found = [
        Mention(one.key, start, end, _introduction(tokens, start))
        for one in candidates
        for start, end in _find_places(tokens, stems, one)
    ]
    kept: list[Mention] = []
    for mention in sorted(found, key=lambda one: (one.start - one.end, one.start)):
        if all(mention.end <= other.start or mention.start >= other.end for other in kept):
            kept.append(mention)
    return sorted(kept, key=lambda one: one.start)


def find_numbers(sentence: str) -> list[Number]:
    """Every number of a sentence. A minus sign counts where nothing is subtracted."""
    tokens = tokenize(sentence)
    signed = [
        (k, -t.value if _is_negative(tokens, k) else t.value) for k, t in enumerate(tokens) if t.value is not None
    ]
    return [Number(value, Mention(value, k, k + 1, _introduction(tokens, k))) for k, value in signed]


def read_number(answer: str) -> Fraction | None:
    """The one number of a short answer, whatever its unit (`$1,200`, `12 apples`, `-3`); None for any other text."""
    tokens, numbers = tokenize(answer), find_numbers(answer)
    words = sum(token.value is None and token.text[0].isalnum() for token in tokens)
    return numbers[0].value if len(numbers) == 1 and words <= _MAX_UNIT_WORDS else None


def _find_places(tokens: Sequence[Token], stems: Sequence[str], candidate: Candidate) -> Iterator[tuple[int, int]]:
    for text in candidate.texts:
        words = [_stem(token) for token in tokenize(text) if token.text[0].isalnum()]
        needs_place = len(words) == 1 and (words[0] in _FREQUENT or _is_letter(words[0]))
        for start in range(len(stems) - len(words) + 1) if words else ():
            end = start + len(words)
            if stems[start:end] == words and (not needs_place or _stands_alone(tokens, start)):
                yield start, end
    if candidate.letter:
        yield from ((k, k + 1) for k in range(len(tokens)) if _is_label(tokens, k, candidate.letter))


def _is_letter(word: str) -> bool:
    return len(word) == 1 and word.isalpha() and not re.match(UNSPACED, word)


def _stem(token: Token) -> str:
    """A word without its ending where at least four letters remain (three before an `s`); a number by its value."""
    if token.value is not None:
        return str(token.value)
    text = token.text.removesuffix("'s").removesuffix("’s")
    for ending in ("ing", "ed", "es", "s", "e", "y"):
        if len(text) - len(ending) >= (3 if ending == "s" else 4) and text.endswith(ending) and not text.endswith("ss"):
            return text.removesuffix(ending)
    return text


def _is_negative(tokens: Sequence[Token], k: int) -> bool:
    if k == 0 or tokens[k - 1].text != "-":
        return False
    return (
        k == 1
        or not (tokens[k - 2].text[0].isalnum() or tokens[k - 2].text in ")]}%")
        or bool(_introduction(tokens, k))
    )


def _introduction(tokens: Sequence[Token], start: int) -> str:
    """The word or sign right before a candidate, articles aside, that introduces a result; "" for any other."""
    k = start - 1
    while k >= 0 and (tokens[k].text in _SKIPPED or tokens[k].text in _SKIPPED_SIGNS):
        k -= 1
    return tokens[k].text if k >= 0 and tokens[k].text in _INTRODUCTIONS else ""


def _stands_alone(tokens: Sequence[Token], k: int) -> bool:
    """Whether a frequent word is an answer: first and before a comma, or last and introduced, or all there is."""
    before = [token for token in tokens[:k] if token.text[0].isalnum()]
    after = next((token.text for token in tokens[k + 1 :] if token.text not in "'\"*)]}”"), ".")
    if not before and after in ".,;:!":
        return True
    return after in ".;!" and (bool(_introduction(tokens, k)) or (k > 0 and tokens[k - 1].text == ":"))


def _is_label(tokens: Sequence[Token], k: int, letter: str) -> bool:
    """Whether token `k` is this letter as the label of an option."""
    token = tokens[k]
    if token.text != letter.casefold():
        return False
    before, after = tokens[k - 1].text if k else "", tokens[k + 1].text if k + 1 < len(tokens) else ""
    if before and after == _BRACKETS.get(before):
        return True
    if token.raw != letter:
        return False
    if before in _LABELS:
        return True
    ends = all(token.text in _CLOSERS for token in tokens[k + 1 :])
    return ends and (k == 0 or before == ":" or bool(_introduction(tokens, k)))
