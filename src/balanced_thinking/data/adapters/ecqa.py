"""ECQA: questions of CommonsenseQA with five options and an explanation (dair-iitd/ECQA-Dataset).

Read are `cqa_data_<split>.csv`, which the authors' `generate_data.py` writes, the hub's table with the same columns,
and FLAN's `ecqa.tsv` (6,406 rows, `text_questions`). The reasoning is the explanation in free words (`taskB`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from balanced_thinking.data.bad_rows import BadRow
from balanced_thinking.data.example import Example
from balanced_thinking.data.text_questions import TextQuestion, read_text_questions

HUB = ("tasksource/ecqa",)


def load(path: str | Path, *, split: str = "train", answer_as: str = "text") -> Iterator[Example | BadRow]:
    """Yield one `Example` or `BadRow` per question. `answer_as`: `text` or `letter` of the right option."""
    return read_text_questions(path, split, _parse_record, owner="ECQA", answer_as=answer_as)


def _parse_record(record: dict[str, Any]) -> TextQuestion:
    options = tuple(str(record[f"q_op{k}"]) for k in range(1, 6))
    return TextQuestion(record["q_text"], options, record["q_ans"], record["taskB"], record["q_no"])
