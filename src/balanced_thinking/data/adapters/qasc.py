"""QASC: science questions with eight options, answered by joining two facts (allenai/qasc, CC BY 4.0).

Read are the authors' `train.jsonl` and `dev.jsonl`, the hub's table, and FLAN's `qasc.tsv` (1,084 rows,
`text_questions`). The reasoning is both facts and what follows from them. The published test split has no answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from balanced_thinking.data.bad_rows import BadRow
from balanced_thinking.data.example import Example
from balanced_thinking.data.text_questions import TextQuestion, read_text_questions

HUB = ("allenai/qasc",)
FACTS = ("fact1", "fact2", "combinedfact")


def load(path: str | Path, *, split: str = "train", answer_as: str = "text") -> Iterator[Example | BadRow]:
    """Yield one `Example` or `BadRow` per question. `answer_as`: `text` or `letter` of the right option."""
    return read_text_questions(path, split, _parse_record, owner="QASC", answer_as=answer_as)


def _parse_record(record: dict[str, Any]) -> TextQuestion:
    question = record["question"]
    nested = isinstance(question, dict)  # in the authors' lines; the hub's table is flat
    question, choices = (question["stem"], question["choices"]) if nested else (question, record["choices"])
    if isinstance(choices, dict):  # a list of each column
        choices = [
            {"label": label, "text": text} for label, text in zip(choices["label"], choices["text"], strict=True)
        ]
    options = {choice["label"]: choice["text"] for choice in choices}
    think = " ".join(f"{str(record[fact]).strip().rstrip('.')}." for fact in FACTS if record.get(fact))
    return TextQuestion(question, tuple(options.values()), options[record["answerKey"]], think, record.get("id") or "")
