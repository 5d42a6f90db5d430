"""Texts and pictures that a row has beside those that are read: named, or the row is refused; never dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from balanced_thinking.data.bad_rows import BadRow
from balanced_thinking.data.example import Example, find_unread_texts
from tests.data.row_files import SAID, asks, make_pictures, read_one, says

ROW = {"question": "Which animal?", "answer": "horse"}
TALK = [asks("Which animal?"), says()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_pictures(tmp_path)
    return tmp_path


# (row, the names of the texts that nothing reads)
UNREAD = [
    ({**ROW, "prompt": "Look at it."}, ["prompt"]),
    ({**ROW, "completion": "It is one."}, ["completion"]),
    ({**ROW, "think": "It has a mane.", "completion": SAID.replace("mane", "tail")}, ["completion"]),
    ({**ROW, "prompt": "Which animal?"}, []),  # the question again
    ({**ROW, "prompt": None, "completion": None}, []),
    ({"prompt": "Which animal?", "completion": SAID, "question": "And who?", "answer": "pony"}, ["question"]),
    ({"question": "Which animal?", "completion": SAID, "answer": None}, []),  # null, as joined files have it
    ({"messages": TALK, "question": "Which animal?", "answer": "horse"}, []),
    ({"messages": TALK, "question": "Which one is it?", "think": "I do not know."}, ["question", "think"]),
    ({"messages": TALK, "think": "It has a mane."}, []),  # the reply's reasoning again
    ({"messages": TALK, "prompt": "Who is it?", "completion": "A horse."}, ["prompt", "completion"]),
    ({**ROW, "think": "It has a mane.", "reasoning": "I see a tail."}, ["reasoning"]),
    ({**ROW, "think": "<think>It neighs.</think>", "answer": "It has a mane. \\boxed{horse}"}, []),  # both are read
    ({"messages": TALK, "conversations": [asks("Who is it?"), says()]}, ["conversations"]),
    ({**ROW, "meta": "Found on a farm."}, ["meta"]),
    ({**ROW, "meta": {"farm": {"note": "Found on a farm."}}}, ["farm"]),
    ({**ROW, "context": {"text": "It has a mane."}}, ["context"]),
    ({**ROW, "context": [{"text": "It has a mane."}], "notes": ["It neighs."]}, ["context", "notes"]),
    ({**ROW, "candidates": {"A": "dog", "B": "horse"}}, ["candidates"]),
    ({**ROW, "system": {"os": "some Linux"}, "size": {"width": 3}, "tags": ["farm", "animal"]}, ["system"]),
    ({**ROW, "meta": {"note": "Found on a farm."}}, ["note"]),
]


@pytest.mark.parametrize(("row", "names"), UNREAD)
def test_a_text_that_is_not_read_is_named(folder: Path, row: dict[str, Any], names: list[str]) -> None:
    example = read_one(folder, row)
    assert isinstance(example, Example), example
    assert find_unread_texts(example) == names


REFUSED = [
    ({**ROW, "completion": SAID}, "unknown_schema"),  # the reasoning is where nothing reads it
    ({**ROW, "system": ["Be brief.", "Be kind."]}, "not_text"),
    ({**ROW, "system": {"role": "user", "content": "Be brief."}}, "unknown_schema"),
    ({**ROW, "system": [{"type": "text", "text": "Be brief."}, {"type": "image", "image": "a.png"}]}, "unknown_schema"),
    ({**ROW, "system": {"content": {"os": "Linux"}}}, "unknown_schema"),
    ({"problem": "Which animal?", "solution": "horse", "completion": SAID}, "unknown_schema"),
]


@pytest.mark.parametrize(("row", "problem"), REFUSED)
def test_a_row_that_would_lose_a_part_is_refused(folder: Path, row: dict[str, Any], problem: str) -> None:
    found = read_one(folder, row)
    assert isinstance(found, BadRow), found
    assert found.problems == (problem,)
