"""Free-form reasoning without tags: what stands before the sentence that gives the answer, and that answer.

Known are a last line `#### 3` (GSM8K) and short last sentences such as "So the answer is 3.", "**Final answer:** (B)",
"Answer: B. dog". Nothing is guessed where the sentence is long, about the answer, or another one follows.
"""

from __future__ import annotations

import re

_LINKS = (
    r"(?:(?:so|thus|hence|therefore|then|finally|overall|and|now|in (?:conclusion|summary|short|total)|as a result"
    r"|this means|we (?:conclude|know|see|get|find)|putting (?:it|this)(?: all)? together|that|,)[ ,]*)*"
)
_OPENING = re.compile(
    rf"(?:^|(?<=[.!?:])[ \t]|\n)[ \t]*(?:\*\*|__)?{_LINKS}(?:(?:the|my|our) )?(?:(?:final|correct|right) )?"
    r"answer(?:\*\*|__)?(?: is:?|:|=)(?:\*\*|__)?|(?:^|\n)####",
    re.IGNORECASE,
)
_NEXT_SENTENCE = re.compile(r"\n|[.!?]\s+[A-Z]")
_LETTER = re.compile(r"[A-Ha-h][.)]\s+")  # before the text of the option
_TAIL = 400  # characters from the end in which the sentence begins
_WORDS, _WORDS_IN_LOWER_CASE = 8, 3  # of an answer at most: "clear from the picture" is none
_NO_ANSWER = {"not", "in", "on", "that", "clear", "clearly", "obvious", "unknown", "unclear", "given", "what"}


def split_prose(text: str) -> tuple[str, str] | None:
    """(reasoning, answer), both without outer white space; None where the last sentence gives no answer."""
    text = text.strip()
    openings = list(_OPENING.finditer(text, max(0, len(text) - _TAIL)))
    if not openings:
        return None
    said = text[openings[-1].end() :].strip()
    answer = said.rstrip(".").strip("*_ ").strip()
    return (text[: openings[-1].start()].strip(), answer) if _is_short(answer, said) else None


def _is_short(answer: str, said: str) -> bool:
    letter = _LETTER.match(said)
    rest = said[letter.end() :] if letter else said
    words = (answer[letter.end() :] if letter else answer).split()
    if not words or _NEXT_SENTENCE.search(rest):
        return False
    most = _WORDS_IN_LOWER_CASE if letter or words[0][0].islower() else _WORDS
    return len(words) <= most and (letter is not None or words[0].casefold() not in _NO_ANSWER)
