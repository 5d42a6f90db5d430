"""Rows of usual data sets that look like others which are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from balanced_thinking.data.load import load_data

ROWS: list[dict[str, Any]] = [
    # CodeAlpaca: a page is what the question is about
    {
        "instruction": "Fix the HTML.",
        "input": '<div><img src="logo.png" alt="x"></div>',
        "output": "<think>No change.</think><answer><div></div></answer>",
    },
    # WinoGrande: the answer is the number of a column
    {"question": "It fits into the _", "option1": "trophy", "option2": "suitcase", "think": "Large.", "answer": "2"},
    # options that are something else
    {"question": "Which one?", "options": [{"name": "x", "price": 2}, {"name": "y", "price": 3}], "answer": "x"},
    # OpenRouter: encrypted details beside reasoning in the content
    {
        "messages": [
            {"role": "user", "content": "Which?", "rationale": "a hard one"},
            {
                "role": "assistant",
                "content": "<think>t</think><answer>x</answer>",
                "reasoning_details": [{"type": "reasoning.encrypted", "data": "z"}],
                "cot": "another text",
            },
        ]
    },
    # a completion under think, whose answer is written in another way
    {"question": "Which?", "think": "<think>a</think><answer>(B)</answer>", "answer": "B"},
    # Reflection: tags within the reasoning
    {"question": "Which?", "think": "It is.\n<reflection>Sure.</reflection>", "answer": "B"},
    # an answer in XML
    {"question": "Write it.", "think": "t", "answer": "<solution><x>1</x></solution>"},
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(row))
def test_a_usual_row_is_read(row: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    found = load_data(str(file), on_bad_row="drop")
    assert [bad.problems for bad in found.bad_rows] == []
    assert len(found.examples) == 1
