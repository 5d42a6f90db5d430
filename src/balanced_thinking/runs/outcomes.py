"""How a completion ended: right, wrong, or wrong in a way that its text shows."""

from __future__ import annotations

import re

from balanced_thinking.runs.records import Prediction
from balanced_thinking.segments import FORMATS, parse

RIGHT, TRUNCATED, MALFORMED, SLIP, WRONG = (
    "right",
    "truncated",
    "malformed",
    "right reasoning, wrong answer",
    "wrong answer",
)
_LONGEST_ANSWER, _LAST_CHARACTERS = 500, 20_000  # what is searched: a stranger may write megabytes
# In the order of the report. Every completion is in exactly one group.
GROUPS = (RIGHT, SLIP, WRONG, MALFORMED, TRUNCATED)
SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


def classify_outcome(row: Prediction, reasoning_format: str) -> str:
    """The one of GROUPS to which a prediction belongs."""
    if row.correct:
        return RIGHT
    if row.truncated:
        return TRUNCATED
    if row.malformed:
        return MALFORMED
    return SLIP if only_reasoning_is_right(row, reasoning_format) else WRONG


def only_reasoning_is_right(row: Prediction, reasoning_format: str) -> bool:
    """Whether the last sentence of the thinking names the right answer, as a word, and not the answer given.

    A single letter counts only as `option B`: `a` is a word of its own.
    """
    gold, given = row.gold.strip(), (row.prediction or "").strip()
    if not gold or len(gold) > _LONGEST_ANSWER:
        return False
    think = (parse(row.completion, reasoning_format).think or "")[-_LAST_CHARACTERS:]
    last = next((text for text in reversed(SENTENCE.split(think)) if re.search(r"\w", text)), "")
    return _names_answer(last, gold) and not (given and _names_answer(last, given[:_LONGEST_ANSWER]))


def _names_answer(sentence: str, answer: str) -> bool:
    before = r"\b(?:option|choice|answer)\s+(?:is\s+)?\(?" if len(answer) == 1 and answer.isalpha() else r"(?<!\w)"
    return re.search(rf"{before}{re.escape(answer)}(?!\w)", sentence, re.IGNORECASE) is not None


def builtin_format_or_auto(name: object) -> str:
    """The name of a built-in format; `auto`, which tries all of them, for a format that only the run knows."""
    return name if isinstance(name, str) and name in FORMATS else "auto"
