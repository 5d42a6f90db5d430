"""Split reasoning without tags: the text before the sentence that gives the answer, and that answer.

Recognised are a last line `#### 3` (GSM8K) and short last sentences such as "So the answer is 3.", "**Final answer:**
(B)", "Answer: B. dog". Nothing is guessed if the sentence is long, only talks about the answer, or is not the last one.
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
_TAIL = 400  # the sentence must begin in this many last characters
_MAX_WORDS, _MAX_WORDS_IN_LOWER_CASE = 8, 3  # of an answer: "clear from the picture" is not one
_NO_ANSWER = {"not", "in", "on", "that", "clear", "clearly", "obvious", "unknown", "unclear", "given", "what"}


def split_prose(text: str) -> tuple[str, str] | None:
    """(reasoning, answer), both without outer white space; None if the last sentence gives no answer."""
    text = text.strip()
    openings = list(_OPENING.finditer(text, max(0, len(text) - _TAIL)))
    if not openings:
        return None
    after_opening = text[openings[-1].end() :].strip()
    answer = after_opening.rstrip(".").strip("*_ ").strip()
    return (text[: openings[-1].start()].strip(), answer) if _is_only_an_answer(answer, after_opening) else None


def _is_only_an_answer(answer: str, after_opening: str) -> bool:
    """Whether the text looks like an answer and no other sentence follows it."""
    letter = _LETTER.match(after_opening)
    rest = after_opening[letter.end() :] if letter else after_opening
    words = (answer[letter.end() :] if letter else answer).split()
    if not words or _NEXT_SENTENCE.search(rest):
        return False
    most = _MAX_WORDS_IN_LOWER_CASE if letter or words[0][0].islower() else _MAX_WORDS
    return len(words) <= most and (letter is not None or words[0].casefold() not in _NO_ANSWER)
