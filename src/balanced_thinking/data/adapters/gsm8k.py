"""GSM8K: word problems of two to eight steps whose answer is a number (openai/grade-school-math).

Read are the authors' `train.jsonl` and `test.jsonl`, the hub's table, and FLAN's `gsm8k.tsv` (the 7,473 training rows,
`text_questions`). An answer as published ends in `#### 72`; its calculator notes (`<<48/2=24>>`) are left out. Score it
with `numeric`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from balanced_thinking.data.bad_rows import BadRow, UnknownDataError
from balanced_thinking.data.example import Example
from balanced_thinking.data.tables import is_hub_name
from balanced_thinking.data.text_questions import TextQuestion, read_text_questions

HUB = ("openai/gsm8k",)
_NOTES = re.compile(r"<<[^<>]*>>")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


def load(
    path: str | Path, *, split: str = "train", max_sentences: int | None = None, subset: str | None = None
) -> Iterator[Example | BadRow]:
    """Yield one `Example` or `BadRow` per problem. `subset`: a configuration on the hub, there `main` by default.

    `max_sentences`: only problems whose solution has at most so many sentences; 2 gives the easiest quarter.
    """
    if max_sentences is not None and max_sentences < 1:
        raise UnknownDataError(f"max_sentences is {max_sentences}; expected at least 1, or null for all problems")
    subset = subset or ("main" if is_hub_name(path) else None)  # the other one, `socratic`, asks for each step
    for row in read_text_questions(path, split, _parse_record, owner="GSM8K", subset=subset):
        if max_sentences is None or isinstance(row, BadRow) or _count_sentences(row.think or "") <= max_sentences:
            yield row


def _count_sentences(text: str) -> int:
    return len(_SENTENCE_END.split(text))


def _parse_record(record: dict[str, Any]) -> TextQuestion:
    think, mark, answer = record["answer"].rpartition("####")
    if not mark:
        raise ValueError("the answer has no ####")
    return TextQuestion(record["question"], (), answer.strip().replace(",", ""), _NOTES.sub("", think))
