"""Texts and pictures that a row has beside those that are read: named, or the row is refused; never dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from balanced_thinking.cli import main
from balanced_thinking.data.bad_rows import BadRow
from balanced_thinking.data.example import Example, find_unread_texts
from balanced_thinking.data.unread import find_unread_pictures
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


# (values beside a picture, the names of the pictures that nothing reads)
PICTURES = [
    ({"image": "one.png", "mask": "two.png"}, ["mask"]),
    ({"image": "one.png", "views": [{"side": "two.png"}], "file_name": "photos/1.png"}, ["views"]),
    ({"image": "one.png", "shown": "./one.png", "image_path": "photos/1.png", "note": "as in two.png"}, []),
]


@pytest.mark.parametrize(("values", "names"), PICTURES)
def test_a_picture_beside_the_rows_own_is_named(folder: Path, values: dict[str, Any], names: list[str]) -> None:
    example = read_one(folder, ROW | values)
    assert isinstance(example, Example), example
    assert (len(example.images), find_unread_pictures(example)) == (1, names)


def test_inspect_names_an_embedded_picture_that_is_not_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [{"bytes": (folder / name).read_bytes(), "path": None} for name in ("one.png", "two.png")]
    row = {**ROW, "image": cells[0], "mask": cells[1], "views": cells, "vector": b"0123"}
    pq.write_table(pa.Table.from_pylist([row]), folder / "a.parquet")
    assert main(["inspect", str(folder / "a.parquet")]) == 0
    assert "nothing reads the pictures under mask 1, views 1" in capsys.readouterr().out


SHOWN = {"type": "image", "image": "one.png"}
REFUSED = [
    ({"messages": [asks([SHOWN, "Which?"]), says()], "images": ["two.png"]}, "unread_image"),
    ({"messages": [asks([SHOWN, "Which?"], images=["two.png"]), says()]}, "unread_image"),
    ({"messages": [asks("Which?", images=["one.png"]), says()], "image": "two.png"}, "unread_image"),
    ({"messages": [asks("Which?", images=["one.png"], image="two.png"), says()]}, "unread_image"),
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
