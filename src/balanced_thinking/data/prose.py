"""Free-form reasoning without tags: what stands before the sentence that gives the answer, and that answer.

Known are a last line `#### 3` (GSM8K) and last sentences such as "So the answer is 3.", "**Final answer:** (B)" or
"Answer: B". Nothing is guessed where another sentence follows.
"""

from __future__ import annotations

import re

_OPENING = re.compile(
    r"(?:^|(?<=[.!?:])[ \t]|\n)[ \t]*(?:\*\*|__)?(?:[a-z,' ]{0,40}\b)?"  # "So, putting it all together, "
    r"(?:final |correct |right )?answer(?:\*\*|__)?(?: is:?|:|=)(?:\*\*|__)?|(?:^|\n)####",
    re.IGNORECASE,
)
_NEXT_SENTENCE = re.compile(r"\n|(?<!^[A-Ha-h])[.!?]\s+[A-Z]")
_TAIL = 400  # characters from the end in which the sentence begins


def split_prose(text: str) -> tuple[str, str] | None:
    """(reasoning, answer), both without outer white space; None where the last sentence gives no answer."""
    text = text.strip()
    openings = list(_OPENING.finditer(text, max(0, len(text) - _TAIL)))
    if not openings:
        return None
    said = text[openings[-1].end() :].strip()
    answer = said.rstrip(".").strip("*_ ").strip()
    return None if not answer or _NEXT_SENTENCE.search(said) else (text[: openings[-1].start()].strip(), answer)
