"""How a completion ended: right, wrong, or wrong in a way that can be told from its text."""

from __future__ import annotations

import re

from balanced_thinking.runs.records import Prediction
from balanced_thinking.segments import FORMATS, parse

# Every completion is in one group: the first of these that fits, apart from the order in which they are shown.
RIGHT, TRUNCATED, MALFORMED, SLIP, WRONG = (
    "right",
    "truncated",
    "malformed",
    "right reasoning, wrong answer",
    "wrong answer",
)
GROUPS = (RIGHT, SLIP, WRONG, MALFORMED, TRUNCATED)
SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


def group_of(row: Prediction, reasoning_format: str) -> str:
    """The group of one prediction."""
    if row.correct:
        return RIGHT
    if row.truncated:
        return TRUNCATED
    if row.malformed:
        return MALFORMED
    return SLIP if reasoned_right(row, reasoning_format) else WRONG


def reasoned_right(row: Prediction, reasoning_format: str) -> bool:
    """Whether the last sentence of the thinking names the right answer, as a word, and not the one that was given.

    A single letter counts only as `option B`: `a` is a word of its own.
    """
    gold, given = row.gold.strip(), (row.prediction or "").strip()
    if not gold:
        return False
    think = parse(row.completion, reasoning_format).think or ""
    last = next((text for text in reversed(SENTENCE.split(think)) if re.search(r"\w", text)), "")
    return _names(last, gold) and not (given and _names(last, given))


def _names(sentence: str, answer: str) -> bool:
    before = r"\b(?:option|choice|answer)\s+(?:is\s+)?\(?" if len(answer) == 1 and answer.isalpha() else r"(?<!\w)"
    return re.search(rf"{before}{re.escape(answer)}(?!\w)", sentence, re.IGNORECASE) is not None


def known_format(name: object) -> str:
    """A format of one's own is known to the run, not to the report: then the built-in ones are tried."""
    return name if isinstance(name, str) and name in FORMATS else "auto"
