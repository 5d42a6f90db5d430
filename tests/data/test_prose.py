"""Free-form reasoning: which last sentences give an answer, and which give none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from balanced_thinking.cli import main
from balanced_thinking.data.load import load_data
from balanced_thinking.data.prose import split_prose

CASES = [
    ("I count. There are 3. So the answer is 3.", ("I count. There are 3.", "3")),
    ("I count.\n#### 42", ("I count.", "42")),  # GSM8K
    ("I look.\n**Final answer:** (B)", ("I look.", "(B)")),  # markdown
    ("I look. Answer: B", ("I look.", "B")),
    ("I look. Thus, putting it all together, the correct answer is C. bird.", ("I look.", "C. bird")),
    ("I look. The answer is B. Bird", ("I look.", "B. Bird")),  # a letter's dot ends no sentence
    ("We know.\nTherefore the final answer is: **blue**.", ("We know.", "blue")),
    ("It is long. So the answer is 3.14.", ("It is long.", "3.14")),
    (
        "The answer is in the picture. So we look. The answer is 5 cm.",
        ("The answer is in the picture. So we look.", "5 cm"),
    ),
    ("Answer: 3", ("", "3")),  # no reasoning
    ("I look. The answer is B. The other options are wrong.", None),  # a letter's dot, and a sentence
    ("I look. The answer is clear from the picture.", None),
    ("I look. The answer is clear.", None),
    ("I look. I doubt the answer is 5.", None),
    ("I look. The answer is the red one on the left.", None),  # no answer to compare with
    ("The answer is not clear at first. It may be 3.", None),  # a sentence follows
    ("The answer is 3. But wait.\nYes.", None),
    ("I count three.", None),
    ("So the answer is", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_only_the_last_sentence_can_give_the_answer(text: str, expected: tuple[str, str] | None) -> None:
    assert split_prose(text) == expected


def test_prose_is_converted_to_a_format_and_read_back(tmp_path: Path) -> None:
    rows = [
        {"question": "How many?", "completion": "I count. There are 3. So the answer is 3."},
        {"prompt": "Which?", "completion": "I look.\nFinal answer: B"},
        {"prompt": "Which?", "completion": "<think>I look.</think><answer>C</answer>"},  # tags go first
        {"prompt": "Which?", "completion": "I see nothing."},
    ]
    (tmp_path / "free.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["convert", str(tmp_path / "free.jsonl"), "--format", "deepseek-r1", "--on-bad-row", "drop"]
    assert main([*words, "--data_options.format", "prose", "--out", str(tmp_path / "out.jsonl")]) == 0
    found = load_data(str(tmp_path / "out.jsonl")).examples
    assert [(e.think, e.answer) for e in found] == [("I count. There are 3.", "3"), ("I look.", "B"), ("I look.", "C")]
    assert {e.meta["read_as"] for e in found} == {"deepseek-r1"}


def test_without_the_option_nothing_is_guessed(tmp_path: Path) -> None:
    (tmp_path / "free.jsonl").write_text(json.dumps({"prompt": "?", "completion": "I count. The answer is 3."}) + "\n")
    loaded = load_data(str(tmp_path / "free.jsonl"), on_bad_row="drop")
    assert (loaded.examples, loaded.dropped) == ([], 1)
