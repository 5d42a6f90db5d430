"""Conversion: what is written is read back unchanged, from every adapter and from a user's own table."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from balanced_thinking.cli import main
from balanced_thinking.config.errors import FileInTheWayError
from balanced_thinking.data.convert import write_jsonl
from balanced_thinking.data.example import Example
from balanced_thinking.data.images import open_image
from balanced_thinking.data.load import load_data
from balanced_thinking.segments import FORMATS
from balanced_thinking.system.locks import hold_file
from tests.cli.tiny_commands import exit_code
from tests.system.other_process import held_by_another_process, names_in


def same(a: Example, b: Example) -> None:
    plain = [
        replace(e, images=(), meta={k: v for k, v in e.meta.items() if k not in ("row", "read_as")}) for e in (a, b)
    ]
    assert plain[0] == plain[1]
    for left, right in zip(a.images, b.images, strict=True):
        assert not ImageChops.difference(open_image(left), open_image(right)).getbbox()


@pytest.mark.parametrize("format", [None, "think-answer", "deepseek-r1", "llava-cot", "boxed"])
def test_what_is_converted_is_read_back_as_it_was(format: str | None, tmp_path: Path) -> None:
    examples = load_data("world", options={"n": 6, "ratio": 8}).examples
    assert write_jsonl(examples, tmp_path / "mine.jsonl", format=format) == 6
    for before, after in zip(examples, load_data(str(tmp_path / "mine.jsonl")).examples, strict=True):
        same(before, replace(after, think=before.think) if format == "llava-cot" else after)
        assert after.think


@pytest.mark.parametrize("format", [name for name, shape in FORMATS.items() if shape.think_required])
@pytest.mark.parametrize("think", ["It has a mane.", "The tag <answer> opens it.", "Its end is <CONCLUSION>."])
def test_reasoning_with_a_tag_is_read_back_from_every_format(format: str, think: str, tmp_path: Path) -> None:
    write_jsonl([Example("a", "Which?", (), think, "horse")], tmp_path / "out.jsonl", format=format)
    assert '"completion"' in (tmp_path / "out.jsonl").read_text() or "<" in think
    (again,) = load_data(str(tmp_path / "out.jsonl")).examples
    assert (again.think, again.answer) == (think, "horse")


def test_real_sets_are_read_back_as_they_were(real_data: Path, tmp_path: Path) -> None:
    for name, split in (("puzzlevqa", "validation"), ("scienceqa", "test"), ("iconqa", "test")):
        examples = load_data(str(real_data / name), split=split).examples
        write_jsonl(examples, tmp_path / f"{name}.jsonl")
        for before, after in zip(examples, load_data(str(tmp_path / f"{name}.jsonl")).examples, strict=True):
            assert [str(i) for i in after.images] == [str(i.resolve()) for i in before.images]
            assert replace(before, images=(), meta={}) == replace(after, images=(), meta={})
            assert after.meta["family"] == before.meta["family"]


def table(folder: Path, rows: list[dict[str, Any]]) -> str:
    Image.new("RGB", (8, 8), "red").save(folder / "a.png")
    with (folder / "mine.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["image", "question", "reasoning", "answer", "choices"])
        writer.writeheader()
        writer.writerows(rows)
    return str(folder / "mine.csv")


def test_a_users_table_becomes_json_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"image": "a.png", "question": 'Which, "this"\nor that?', "reasoning": "It is red.", "answer": "B"}
    path = table(tmp_path, [row | {"choices": "blue | red"}, {"question": "And now?", "answer": "7"}])
    first, second = load_data(path).examples
    assert (first.question, first.think, first.choices) == (row["question"], "It is red.", ("blue", "red"))
    assert (second.images, second.think, second.choices) == ((), None, ())
    out = tmp_path / "out.jsonl"
    assert main(["convert", path, "--out", str(out)]) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err.splitlines()[-1]) == (f"{out}\n", "2 rows")
    assert "1 samples have choices that the question does not show" in shown.err
    for before, after in zip((first, second), load_data(str(out)).examples, strict=True):
        assert before.images == after.images
        same(before, replace(after, meta=before.meta))
    assert exit_code(["convert", path, "--out", str(out)]) == 2
    assert "add --overwrite" in capsys.readouterr().err
    assert main(["convert", path, "--out", str(out), "--overwrite", "--format", "boxed"]) == 0
    assert load_data(str(out)).examples[0].answer == "B"
    assert exit_code(["convert", path, "--out", str(out), "--overwrite", "--format", "boxd"]) == 2


def test_a_table_with_a_bad_row_names_its_line(tmp_path: Path) -> None:
    path = table(tmp_path, [{"question": "What?", "answer": "7"}, {"image": "b.png", "question": "Q", "answer": "1"}])
    loaded = load_data(path, on_bad_row="drop")
    assert [(bad.row, bad.problems) for bad in loaded.bad_rows] == [(3, ("missing_image",))]
    (tmp_path / "latin.csv").write_bytes("question,answer\nWas heißt ü?,1\n".encode("latin-1"))
    rows = [
        b"question,answer",
        *(b"Q%d,1" % k for k in range(50)),
        "Was heißt ü?,1".encode("latin-1"),
        b"Q,1,more",
        b'"Q" is,1',
        b"Q99,1",
    ]
    (tmp_path / "latin.csv").write_bytes(b"\n".join(rows) + b"\n")
    loaded = load_data(str(tmp_path / "latin.csv"), on_bad_row="drop")
    assert len(loaded.examples) == 51
    problems = [(bad.row, bad.problems) for bad in loaded.bad_rows]
    assert problems == [(52, ("not_utf8",)), (53, ("invalid_csv",)), (54, ("invalid_csv",))]


@pytest.mark.parametrize("line", ['"Q,2', 'Q,"2', '"question,answer'])
def test_a_quote_that_is_never_closed_is_an_error(tmp_path: Path, line: str) -> None:
    rows = ["Q0,1", line, "Q2,3", "Q3,4"]
    (tmp_path / "open.csv").write_text("\n".join(["question,answer", *rows]) + "\n")
    with pytest.raises(ValueError, match=r"open\.csv, line 3: .*close the quote"):
        load_data(str(tmp_path / "open.csv"), on_bad_row="drop")


def test_one_oversized_cell_makes_one_bad_row(tmp_path: Path) -> None:
    rows = ["question,answer", "Q0,1", f"{'x' * (2**24 + 1)},2", "Q2,3"]
    (tmp_path / "big.csv").write_text("\n".join(rows) + "\n")
    loaded = load_data(str(tmp_path / "big.csv"), on_bad_row="drop")
    assert [example.question for example in loaded.examples] == ["Q0", "Q2"]
    assert [bad.problems for bad in loaded.bad_rows] == [("invalid_csv",)]


def test_column_names_may_have_capital_letters(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "own.csv").write_text("Image, Question,REASONING,Answer\na.png | b.png,Q?,I look.,B\n")
    (example,) = load_data(str(tmp_path / "own.csv")).examples
    assert (example.question, example.think, example.answer) == ("Q?", "I look.", "B")
    assert [image.name for image in example.images] == ["a.png", "b.png"]


def test_a_picture_under_another_name_is_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("img,question,answer\na.png,Q?,B\n")
    loaded = load_data(str(tmp_path / "own.csv"), on_bad_row="drop")
    assert [(bad.problems, bad.text) for bad in loaded.bad_rows] == [(("unread_image",), "img: a.png")]
    beside = [
        {"image_path": ["pic.png"]},
        {"img": {"path": "pic.JPG"}},
        {"meta": {"image": "pic.png"}},
        {"image_url": "https://a.b/c.png?x=1"},
    ]
    rows = [{"question": "Q?", "answer": "B"} | one for one in beside]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = load_data(str(tmp_path / "own.jsonl"), on_bad_row="drop")
    names = [bad.text.partition(":")[0] for bad in loaded.bad_rows]
    assert names == ["image_path", "img.path", "meta.image", "image_url"]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("question,Answer,answer\nQ?,A,B\n")
    with pytest.raises(ValueError, match="two columns called answer"):
        load_data(str(tmp_path / "own.csv"))


def test_other_columns_do_not_overwrite_a_row(tmp_path: Path) -> None:
    example = Example("1", "Q?", (), None, "7", meta={"answer": "zzz", "split": "val", "id": 9, "family": "f"})
    write_jsonl([example], tmp_path / "out.jsonl", format="think-answer")
    (read,) = load_data(str(tmp_path / "out.jsonl")).examples
    assert (read.id, read.answer, read.meta["family"]) == ("1", "7", "f")
    with pytest.raises(ValueError, match=r"ends in \.jsonl"):
        write_jsonl([example], tmp_path / "out.csv")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"question;answer\nQ?;7\n", "has semicolons between its columns (question;answer); expected commas"),
        ("a.csv", b"question\tanswer\nQ?\t7\n", "has tabs between its columns"),
        ("a.csv", "question,answer\nQ?,7\n".encode("utf-16"), "is UTF-16; expected UTF-8"),
        ("a.jsonl", '{"question": "Q?", "answer": "7"}\n'.encode("utf-16"), "is UTF-16; expected UTF-8"),
        ("a.jsonl", b'{\n  "question": "Q?",\n  "answer": "7"\n}\n', "has a JSON object on several lines"),
        ("a.json", b'\xef\xbb\xbf{\r\n"rows": []}', "expected one row per line, or an array"),
    ],
)
def test_an_unreadable_file_is_an_error_that_says_how_to_save_it(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(said)):
        load_data(str(tmp_path / name), on_bad_row="drop")


def test_a_single_brace_is_one_bad_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": "Q?", "answer": "7"}\n{\n')
    loaded = load_data(str(tmp_path / "a.jsonl"), on_bad_row="drop")
    assert (len(loaded.examples), [bad.row for bad in loaded.bad_rows]) == (1, [2])


def test_empty_rows_of_a_spreadsheet_are_skipped_and_endings_may_be_capitals(tmp_path: Path) -> None:
    (tmp_path / "A.CSV").write_text("question,answer\nQ?,7\n,\n ,,,\nR?,8\n")
    loaded = load_data(str(tmp_path / "A.CSV"))
    assert [(example.question, example.meta["row"]) for example in loaded.examples] == [("Q?", 2), ("R?", 5)]


def test_without_rows_no_file_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("question,answer\n")
    assert main(["convert", str(tmp_path / "a.csv"), "--out", str(tmp_path / "a.jsonl")]) == 1
    assert "there is no row to write" in capsys.readouterr().err
    assert not (tmp_path / "a.jsonl").exists()


def test_pictures_of_others_are_left_where_they_are(tmp_path: Path) -> None:
    row = Example("a", "Which?", (Image.new("RGB", (4, 4)),), None, "B")
    pictures, out = tmp_path / "out-images", tmp_path / "out.jsonl"
    pictures.mkdir()
    (pictures / "holiday.png").write_bytes(b"mine")
    with pytest.raises(FileInTheWayError, match=r"out-images is there already, but out\.jsonl"):
        write_jsonl([row], out)
    assert names_in(tmp_path) == ["out-images", "out-images/holiday.png"]
    out.touch()
    for count in (2, 1):
        write_jsonl([row] * count, out)
        kept = [f"out-images/00000{k}-0.png" for k in range(count)]
        assert names_in(tmp_path) == ["out-images", *kept, "out-images/holiday.png", "out.jsonl"]
    named = Example("b", "Which?", (pictures / "000000-0.png",), None, "B")
    before = out.read_text()
    with pytest.raises(FileInTheWayError, match=r"row 'b' names .*000000-0\.png, but the pictures"):
        write_jsonl([row, named], out)
    assert out.read_text() == before
    assert write_jsonl([named], out) == 1  # alone it may stay


def test_two_conversions_to_one_file_do_not_mix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with held_by_another_process(tmp_path / "out.jsonl", "writing", hold=hold_file):
        assert exit_code(["convert", "world", "--data_options.n", "1", "--out", str(tmp_path / "out.jsonl")]) == 2
        assert "out.jsonl is in use: process" in capsys.readouterr().err
    assert main(["convert", "world", "--data_options.n", "1", "--out", str(tmp_path / "out.jsonl")]) == 0
    assert [name for name in names_in(tmp_path) if name.startswith(".")] == []
