"""Neighbours of every form: what else parquet, archives and folders hold, and what is said of what cannot be read."""

from __future__ import annotations

import base64
import datetime
import gzip
import json
import os
import pickle
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from balanced_thinking.cli import main
from balanced_thinking.config.errors import UsageError
from balanced_thinking.data import table_bombs, tables
from balanced_thinking.data.bad_rows import DataError
from balanced_thinking.data.images import open_image
from balanced_thinking.data.load import load_data, stream_data
from balanced_thinking.data.overlap import assert_no_overlap
from balanced_thinking.data.registry import resolve_data, result_folder_name
from tests.data.test_formats import (
    BYTES,
    CELLS,
    SAID,
    completion,
    hub_layout,
    ours,
    picture,
    save_pictures,
    saved_splits,
    tar_samples,
    write_cells,
    write_lines,
    write_parquet,
    write_tar,
)

QUESTION, THINK, ANSWER = SAID[0]
ROW = {"question": QUESTION, "answer": ANSWER}


class Trap:
    """Unpickled, it would make a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mknod, (str(self.file),)


# Columns of one parquet row -> the pictures, the reasoning, the answer and the system text of its example.
PARQUET = [
    ({**ROW, "image": CELLS[0]}, (1, None, "2", None)),  # without reasoning, for evaluation
    ({**ROW, "image": None}, (0, None, "2", None)),  # no picture
    ({**ROW, "image": {"bytes": None, "path": None}}, (0, None, "2", None)),  # how pandas writes no picture
    ({**ROW, "images": CELLS[:2]}, (2, None, "2", None)),  # several
    ({**ROW, "image_1": CELLS[0], "image_2": BYTES[1], "image_3": None}, (2, None, "2", None)),  # numbered
    ({**ROW, "image": "a/1.jpg", "decoded_image": CELLS[0]}, (1, None, "2", None)),  # as MathVista
    ({**ROW, "image": CELLS[0], "thumbnail": BYTES[1]}, (1, None, "2", None)),  # bytes that no text can hold
    ({**ROW, "answer": 2.0, "image": CELLS[0], "id": 7}, (1, None, "2", None)),  # whole numbers with a gap
    ({"problem": f"<image>{QUESTION}", "solution": "<answer> 2 </answer>", "images": CELLS[:1]}, (1, None, "2", None)),
    ({"problem": QUESTION, "answer": "2", "images": CELLS[:1]}, (1, None, "2", None)),  # for reinforcement learning
    ({"problem": QUESTION, "solution": "Two of them.", "answer": "2"}, (0, "Two of them.", "2", None)),
    ({"problem": QUESTION, "solution": completion(THINK, "2"), "answer": "2"}, (0, THINK, "2", None)),
    (  # text may follow a box, and a box is a part of the reasoning beside an answer
        {"problem": QUESTION, "solution": r"Two, $\boxed{2}$. It holds.", "answer": "2"},
        (0, r"Two, $\boxed{2}$. It holds.", "2", None),
    ),
    ({"question": QUESTION, "think": "Two.", "answer": r"$\boxed{2}$"}, (0, "Two.", "2", None)),
    ({"messages": [{"role": "user", "content": QUESTION}], "solution": "2"}, (0, None, "2", None)),  # ms-swift, GRPO
    ({"conversations": [{"from": "human", "value": QUESTION}], "answer": "2"}, (0, None, "2", None)),
    ({"problem": QUESTION, "solution": r"Two, so \boxed{2}", "level": 1}, (0, "Two, so", "2", None)),
    ({"prompt": QUESTION, "answer": "2"}, (0, None, "2", None)),
    (
        {
            "prompt": [{"role": "system", "content": "Count."}, {"role": "user", "content": f"<image>{QUESTION}"}],
            "images": CELLS[:1],
            "reward_model": {"style": "rule", "ground_truth": "2"},
        },
        (1, None, "2", "Count."),
    ),
    (
        {
            "prompt": [
                {"role": "system", "content": [{"type": "text", "text": "Count."}]},
                {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
                {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
            ],
            "answer": "2",
            "history": None,  # as tables fill it up
        },
        (0, None, "2", "Count.\n\nBe brief."),
    ),
    ({"problem": QUESTION, "answer": "2", "ground_truth": "two"}, (0, None, "2", None)),  # which is no reasoning
    ({"images": CELLS[:1], "texts": [{"user": QUESTION, "assistant": completion(THINK, "2")}]}, (1, THINK, "2", None)),
    ({"conversation": [{"human": QUESTION, "assistant": completion(THINK, "2")}]}, (0, THINK, "2", None)),  # ms-swift
    (
        {"conversations": [{"human": QUESTION, "assistant": completion(THINK, "2")}], "system": "Count."},
        (0, THINK, "2", "Count."),
    ),
    (  # LMSYS
        {
            "conversation": [
                {"role": "user", "content": QUESTION},
                {"role": "assistant", "content": completion(THINK, "2")},
            ]
        },
        (0, THINK, "2", None),
    ),
    ({**ROW, "conversation": [{"role": "user", "content": "Hello."}]}, (0, None, "2", None)),  # about the question
    (
        {"image": CELLS[0], "conversations": {"from": ["human", "gpt"], "value": [QUESTION, completion(THINK, "2")]}},
        (1, THINK, "2", None),
    ),
    (
        {
            "messages": [
                {"role": "user", "content": [{"type": "image", "image": CELLS[0]}, {"type": "text", "text": QUESTION}]},
                {"role": "assistant", "content": [{"type": "text", "text": completion(THINK, "2")}]},
            ]
        },
        (1, THINK, "2", None),
    ),
    ({"instruction": "How many", "input": "red tiles?", "output": completion(THINK, "2")}, (0, THINK, "2", None)),
    ({"question": QUESTION, "response": completion(THINK, "2"), "image": CELLS[0]}, (1, THINK, "2", None)),
    (
        {"jpg": CELLS[0], "json": ROW, "__key__": "1", "__url__": "a.tar"},
        (1, None, "2", None),
    ),  # `datasets`' WebDataset
    ({"Question": QUESTION, "Answer": "2", "Image ": CELLS[0], "ID": 5}, (1, None, "2", None)),  # from a spreadsheet
    ({"Problem": QUESTION, "Solution": completion(THINK, "2")}, (0, THINK, "2", None)),
]


@pytest.mark.parametrize(("row", "expected"), PARQUET)
def test_a_neighbour_of_parquet_is_read(row: dict[str, Any], expected: tuple[Any, ...], tmp_path: Path) -> None:
    (example,) = load_data(str(write_parquet(tmp_path / "a.parquet", [row])), verify_images=True).examples
    assert (len(example.images), example.think, example.answer, example.system) == expected
    assert "tiles" in example.question
    assert "<image>" not in example.question
    json.dumps(example.meta)  # what `convert` writes


BAD_CELLS = [
    ({"image": b"no picture"}, "broken_image"),
    ({"image": BYTES[0][:40]}, "broken_image"),  # the end is missing
    ({"image": {"bytes": b"", "path": None}}, "broken_image"),  # an empty file is not the same as no picture
    ({"images": [{"bytes": b"", "path": None}]}, "broken_image"),
    ({"image": {"bytes": None, "path": None}, "question": "<image>?"}, "image_count"),
    ({"image": "nowhere.png"}, "missing_image"),
    ({"image": {"bytes": None, "path": "https://example.com/a.png"}}, "remote_image"),
    ({"images": [CELLS[0], {"bytes": None, "path": None}]}, "broken_image"),  # one of two
    ({"scan": CELLS[0]}, "unread_image"),  # a picture under a name of its own
    ({"scans": CELLS[:2]}, "unread_image"),
    ({"image": CELLS[0], "question": "<image><image> Same?"}, "image_count"),
]


@pytest.mark.parametrize(("cells", "problem"), BAD_CELLS)
def test_a_picture_that_cannot_be_used_is_a_bad_row(cells: dict[str, Any], problem: str, tmp_path: Path) -> None:
    loaded = load_data(str(write_parquet(tmp_path / "a.parquet", [ROW | cells])), on_bad_row="drop", verify_images=True)
    assert [bad.problems for bad in loaded.bad_rows] == [(problem,)]
    assert loaded.examples == []


def test_columns_of_other_names_are_named_once(tmp_path: Path) -> None:
    rows = [
        {"ask": q, "meta": {"gold": a}, "pics": [cell], "why": t, "opts": ["2", a]}
        for (q, t, a), cell in zip(SAID, CELLS, strict=True)
    ]
    columns = {"question": "ask", "answer": "meta.gold", "images": "pics", "think": "why", "choices": "opts"}
    for file in (
        write_parquet(tmp_path / "a.parquet", rows),
        write_lines(tmp_path / "a.jsonl", [{**row, "pics": save_pictures(tmp_path)[:1]} for row in rows]),
    ):
        found = load_data(str(file), options={"columns": columns}).examples
        assert [(e.question, e.think, e.answer) for e in found] == SAID
        assert found[1].choices == ("2", "3")
        assert len(found[0].images) == 1
    cells = write_cells(tmp_path / "a.tsv", [{"ask": "Which?", "gold": "b", "opts": "a | b"}], "\t")
    (example,) = load_data(
        str(cells), options={"columns": {"question": "ask", "answer": "gold", "choices": "opts"}}
    ).examples
    assert (example.answer, example.choices) == ("b", ("a", "b"))


def test_a_column_without_values_is_a_column(tmp_path: Path) -> None:
    file = write_cells(tmp_path / "a.csv", [{"ask": "Which?", "gold": "b", "why": ""}], ",")
    columns = {"question": "ask", "answer": "gold", "think": "why"}
    assert load_data(str(file), options={"columns": columns}).examples[0].think is None


WRONG_COLUMNS = [
    ({"questoin": "ask"}, "no target 'questoin' (did you mean 'question'?)"),
    ({"question": "aks"}, "has no column 'aks' (did you mean 'ask'?); it has ask, meta, meta.gold"),
    ({"question": "ask", "answer": "meta.gol"}, "has no column 'meta.gol' (did you mean 'meta.gold'?)"),
    ({"question": 3}, "expected the name of a column"),
    ({"question": ""}, "expected the name of a column"),
    ({"images": ["a", "b"]}, "expected the name of a column"),
    ({}, "--data_options.columns '{question: NAME, answer: meta.gold}'"),
    ({"answer": "meta.gold"}, "--data_options.columns '{question: NAME, answer: meta.gold}'"),
]


@pytest.mark.parametrize(("columns", "text"), WRONG_COLUMNS)
def test_a_wrong_mapping_names_what_there_is(columns: dict[str, Any], text: str, tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", [{"ask": "How many?", "meta": {"gold": "2"}}])
    with pytest.raises(UsageError) as failure:
        load_data(str(file), options={"columns": columns})
    assert text in str(failure.value)


def test_unknown_columns_are_listed_with_the_mapping_to_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_parquet(tmp_path / "a.parquet", [{"text_prompt": "Q?", "gold_label": "2", "pics": CELLS[0], "n": 1}])
    with pytest.raises(SystemExit, match="2"):
        main(["inspect", str(file)])
    said = capsys.readouterr().err
    assert "it has text_prompt, gold_label, pics, n" in said
    mapping = "{question: text_prompt, answer: gold_label, images: pics}"
    assert f"--data_options.columns '{mapping}'" in said
    assert main(["inspect", str(file), "--data_options.columns", mapping]) == 0
    assert "pictures per sample: 1 in 1" in capsys.readouterr().out


def test_an_unknown_name_of_a_conversation_is_suggested(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": completion(THINK, "2")}]
    file = write_parquet(tmp_path / "a.parquet", [{"model": "m", "question_id": 1, "dialogue": talk}])
    with pytest.raises(UsageError, match=r"--data_options\.columns '\{messages: dialogue\}'"):
        load_data(str(file))
    (example,) = load_data(str(file), options={"columns": {"messages": "dialogue"}}).examples
    assert (example.think, example.answer) == (THINK, "2")


@pytest.mark.parametrize("found", [{"data": [ROW, ROW]}, {"1": ROW, "2": ROW}, {"rows": [ROW]}])
def test_rows_inside_of_one_object_are_named(tmp_path: Path, found: dict[str, Any]) -> None:
    (tmp_path / "a.json").write_text(json.dumps(found))
    with pytest.raises(UsageError, match="has its rows inside of one object, under "):
        load_data(str(tmp_path / "a.json"))


def unpicklable(folder: Path) -> Path:
    return write_tar(folder / "a.tar", [{"jpg": BYTES[0], "pyd": pickle.dumps(Trap(folder / "sprung"))}])


UNREADABLE = [
    (lambda at: made(at / "a.zip", b"PK\x03\x04"), "is a zip archive: unpack it"),
    (lambda at: made(at / "a.xlsx", b"PK\x03\x04"), "is a spreadsheet: save it as CSV"),
    (lambda at: made(at / "a.csv.gz", b"\x1f\x8b"), "is compressed: unpack it with gunzip"),
    (lambda at: made(at / "a.jsonl.gz", gzip.compress(b"{}\n" * 99)[:-9]), "cannot be unpacked"),
    (lambda at: made(at / "a.json.gz", b"[]"), "cannot be unpacked"),
    (lambda at: made(at / "a.pkl", pickle.dumps(Trap(at / "sprung"))), "is a pickle, which runs code"),
    (lambda at: made(at / "a.py", b"raise SystemExit"), "no code of a data set is run"),
    (lambda at: made(at / "a.txt", b"How many?"), "is plain text: write one JSON object per line"),
    (lambda at: made(at / "a.png", BYTES[0]), "is a picture; name a table"),
    (lambda at: made(at / "a.weird", b"?"), "is not in the form of a known data set"),
    (lambda at: made(at / "a.jsonl", b"PK\x03\x04 ..."), "is a zip archive or a spreadsheet"),
    (lambda at: made(at / "a.jsonl", b"PAR1 ..."), "is parquet: call it .parquet"),
    (lambda at: made(at / "a.parquet", b"version https://git-lfs.github.com/spec/v1\n"), "run git lfs pull"),
    (lambda at: made(at / "a.jsonl", b"version https://git-lfs.github.com/spec/v1\n"), "run git lfs pull"),
    (lambda at: made(at / "a.parquet", b"nothing of it"), "a.parquet cannot be read"),
    (lambda at: made(at / "a.arrow", b"nothing of it"), "a.arrow cannot be read"),
    (lambda at: made(at / "a.tar", b"nothing of it" * 99), "expected a complete tar archive"),
    (lambda at: cut_short(write_tar(at / "a.tar", tar_samples())), "unexpected end of data"),
    (unpicklable, "--data_options.columns"),  # neither question nor answer, and the pickle stays closed
    (lambda at: write_tar(at / "a.tar", [{"jpg": BYTES[0], "txt": b"A caption."}]), "it has txt, images, __key__"),
    (lambda at: at / "nothing.parquet", "there is no data set and no path"),
    (lambda at: folder_of(at / "set"), "is an empty folder"),
    (lambda at: save_pictures(at / "set") and at / "set", "has pictures, but no table with their questions"),
    (lambda at: made(at / "set" / "train.zip", b"PK").parent, "train.zip is a zip archive: unpack it"),
    (lambda at: two_kinds(at / "set"), "files of several kinds (a.jsonl, a.parquet)"),
]


def made(file: Path, data: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def cut_short(file: Path) -> Path:
    file.write_bytes(file.read_bytes()[:2000])
    return file


def two_kinds(folder: Path) -> Path:
    write_parquet(folder / "a.parquet", [ROW])
    return write_lines(folder / "a.jsonl", [ROW]).parent


def folder_of(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize(("make", "text"), UNREADABLE)
def test_what_cannot_be_read_says_what_it_is_and_runs_nothing(make: Any, text: str, tmp_path: Path) -> None:
    place = make(tmp_path)
    with pytest.raises(DataError) as failure:
        load_data(str(place))
    assert text in str(failure.value)
    assert not (tmp_path / "sprung").exists()


def test_a_loading_script_in_a_folder_is_not_run(tmp_path: Path) -> None:
    trap = f"import pathlib\npathlib.Path({str(tmp_path / 'sprung')!r}).touch()\n"
    made(tmp_path / "set" / "set.py", trap.encode())
    write_parquet(tmp_path / "set" / "train.parquet", [ROW])
    assert len(load_data(str(tmp_path / "set")).examples) == 1
    (tmp_path / "set" / "train.parquet").unlink()
    with pytest.raises(DataError, match=r"set\.py is a program, and no code of a data set is run"):
        load_data(str(tmp_path / "set"))
    assert not (tmp_path / "sprung").exists()


SPLITS = [
    (["data/train-00000-of-00001", "data/test-00000-of-00001"], {"train": 1, "test": 1}),
    (["train-00000-of-00002", "train-00001-of-00002"], {"train": 2}),
    (["testmini-00000-of-00001"], {"testmini": 1}),  # a name of its own
    (["train-00001-of-00002", "train-00002-of-00002"], {"train": 2}),  # counted from 1
    (["train/a", "train/b", "val/a"], {"train": 2, "validation": 1, "val": 1}),
    (["part1", "part2", "part3"], {"train": 3, "all": 3}),  # no split in any name
    (["geometry_train", "geometry_dev"], {"train": 1, "validation": 1, "all": 2}),
    (["hard/a", "easy/a"], {"hard": 1, "easy": 1}),  # folders that are called otherwise
]


@pytest.mark.parametrize(("names", "counts"), SPLITS)
def test_the_splits_of_a_folder_are_in_its_names(names: list[str], counts: dict[str, int], tmp_path: Path) -> None:
    for name in names:
        write_parquet(tmp_path / "set" / f"{name}.parquet", [ROW])
    found = {split: len(load_data(str(tmp_path / "set"), split=split).examples) for split in counts}
    assert found == counts


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    for part in (0, 2):
        write_parquet(tmp_path / "set" / "data" / f"train-{part:05d}-of-00003.parquet", [ROW])
    with pytest.raises(DataError, match=r"has 2 of the 3 parts of train; missing: train-00001-of-00003\. Get all"):
        load_data(str(tmp_path / "set"))


LEFT = [
    (["train", "train2", "test"], "train2"),
    (["train", "train-00001-of-00002"], "train-00001-of-00002"),
    (["train", "other"], "other"),
    (["my_training_data", "other"], "other"),
    (["train", "test", "validation"], None),
]


@pytest.mark.parametrize(("names", "left"), LEFT)
def test_files_beside_those_that_are_read_are_named(
    names: list[str], left: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in names:
        write_parquet(tmp_path / f"{name}.parquet", [ROW])
    assert len(load_data(str(tmp_path)).examples) == 1
    warned = f"{tmp_path}: other files with rows are not read (1, such as {left}.parquet)"
    assert caplog.messages == ([warned] if left else [])


def test_narrow_numbers_are_as_short_as_they_were_written(tmp_path: Path) -> None:
    kinds = (pa.float16(), pa.float32(), pa.float64())
    answers = [np.float16(0.1), np.float32(0.1), 0.1]
    for kind, answer in zip(kinds, answers, strict=True):
        boxes = pa.array([[{"x": answer}]], pa.list_(pa.struct([("x", kind)])))
        columns = {"question": pa.array(["How long?"]), "answer": pa.array([answer], kind), "box": boxes}
        pq.write_table(pa.table(columns), tmp_path / "a.parquet")
        (example,) = load_data(str(tmp_path / "a.parquet")).examples
        assert (example.answer, example.meta["box"]) == ("0.1", [{"x": 0.1}])


def test_one_table_of_an_imagefolder_may_be_for_all_splits(tmp_path: Path) -> None:
    for name in ("train/a.png", "train/b.png", "test/c.png"):
        made(tmp_path / "set" / name, BYTES[0])
    rows = [{"file_name": name, **ROW} for name in ("train/a.png", "train/b.png", "test/c.png")]
    write_cells(tmp_path / "set" / "metadata.csv", rows, ",")
    assert [len(load_data(str(tmp_path / "set"), split=s).examples) for s in ("train", "test", "all")] == [2, 1, 3]


def test_an_imagefolder_may_have_several_pictures_a_row(tmp_path: Path) -> None:
    names = save_pictures(tmp_path / "set")
    write_cells(tmp_path / "set" / "metadata.csv", [{"file_names": " | ".join(names[:2]), **ROW}], ",")
    assert len(load_data(str(tmp_path / "set"), verify_images=True).examples[0].images) == 2


def test_files_of_runs_below_a_folder_of_data_are_not_its_rows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_parquet(tmp_path / "mine.parquet", [ROW])
    write_lines(tmp_path / "runs" / "a" / "metrics.jsonl", [{"step": 1}])
    assert len(load_data(str(tmp_path)).examples) == 1
    assert "1 files in subfolders are not read" in caplog.text


def test_pictures_may_be_beside_the_folder_of_the_tables(tmp_path: Path) -> None:
    rows = ours(save_pictures(tmp_path / "set"))
    write_parquet(tmp_path / "set" / "data" / "train-00000-of-00001.parquet", rows)
    write_lines(tmp_path / "set" / "data" / "test.jsonl", rows)
    for split in ("train", "test"):
        assert len(load_data(str(tmp_path / "set"), split=split, verify_images=True).examples) == 3


def test_splits_of_a_table_that_share_a_sample_are_refused(tmp_path: Path) -> None:
    for split, cells in (("train", CELLS), ("validation", CELLS[:1]), ("test", BYTES[:1])):
        write_parquet(tmp_path / "set" / f"{split}.parquet", ours(cells) if len(cells) > 1 else ours([*cells] * 3)[1:2])
    train, validation, test = (
        load_data(str(tmp_path / "set"), split=s).examples for s in ("train", "validation", "test")
    )
    assert_no_overlap(train=train, validation=validation)  # the same picture with another question
    with pytest.raises(DataError, match="'validation' and 'test' both contain"):
        assert_no_overlap(validation=validation, test=test)


def test_dates_and_the_like_are_kept_as_text(tmp_path: Path) -> None:
    row = ROW | {"taken": datetime.datetime(2026, 1, 2), "cost": Decimal("1.50"), "day": datetime.date(2026, 1, 3)}
    file = write_parquet(tmp_path / "a.parquet", [row | {"inner": {"when": datetime.date(2026, 1, 4)}}])
    (example,) = load_data(str(file)).examples
    assert (example.meta["taken"], example.meta["cost"]) == ("2026-01-02 00:00:00", "1.50")
    assert main(["convert", str(file), "--out", str(tmp_path / "a.jsonl")]) == 0
    assert load_data(str(tmp_path / "a.jsonl")).examples[0].meta["inner"] == {"when": "2026-01-04"}


@pytest.mark.parametrize("make", [hub_layout, saved_splits])
def test_a_split_that_is_not_there_is_named_with_those_that_are(make: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no split 'validation'; it has train"):
        load_data(str(make(tmp_path)), split="validation")


def test_a_row_of_a_file_may_name_its_split(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", [ROW | {"split": "train"}, ROW | {"split": "test"}])
    assert [len(load_data(str(file), split=split).examples) for split in ("train", "test", "all")] == [1, 1, 2]
    hashed = [load_data(str(file), split=s, options={"hash_split": True}) for s in ("train", "validation", "test")]
    assert sorted(len(found.examples) for found in hashed) == [0, 0, 2]  # one question is in one split


class Hub:
    """`datasets.load_dataset` on a hub with one data set, whose splits are lists of rows."""

    def __init__(self, **splits: list[dict[str, Any]]) -> None:
        self.splits, self.asked, self.offline = splits, [], False

    def __call__(self, name: str, subset: str | None, *, split: str, streaming: bool, **options: Any) -> Any:
        assert streaming != self.offline
        assert not options  # no trust_remote_code, no data files of another place
        self.asked.append((name, subset))
        if split not in self.splits:
            raise ValueError(f"Bad split: {split}. Available splits: {list(self.splits)}")
        rows = datasets.Dataset.from_list(self.splits[split])
        rows = rows.cast_column("image", datasets.Image())
        return rows.to_iterable_dataset() if streaming else rows


def test_any_data_set_on_the_hub_is_read_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    hub = Hub(train=ours(CELLS), test=ours(CELLS)[:1])
    monkeypatch.setattr(datasets, "load_dataset", hub)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    assert resolve_data("someone/tiles") == ("jsonl", "someone/tiles")
    assert [e.answer for e in load_data("someone/tiles", verify_images=True).examples] == ["2", "3", "4"]
    ids = {split: load_data("someone/tiles", split=split).examples[0].id for split in ("train", "test")}
    assert ids == {"train": "train-000001", "test": "test-000001"}
    with pytest.raises(DataError, match=r"Available splits: \['train', 'test'\]; choose one with --split NAME"):
        load_data("someone/tiles", split="val")
    assert main(["convert", "someone/tiles", "--out", "tiles.jsonl", "--data_options.subset", "small"]) == 0
    assert hub.asked[-1] == ("someone/tiles", "small")
    assert len(load_data("tiles.jsonl", verify_images=True).examples) == 3
    assert result_folder_name("someone/tiles", "test") == "tiles-test"
    hub.offline = True  # with a copy in the cache
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert [e.answer for e in load_data("someone/tiles", verify_images=True).examples] == ["2", "3", "4"]


def test_a_hub_that_is_out_of_reach_and_a_script_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for error, text in (
        (ConnectionError("Couldn't reach it"), "is it misspelt, or is the hub out of reach"),
        (RuntimeError("Dataset scripts are no longer supported"), "no code of a set is run"),
        (ValueError("Config name is missing. Pick one of ['a', 'b']"), "--data_options.subset NAME"),
    ):

        def refuse(*_: Any, error: Exception = error, **__: Any) -> Any:
            raise error

        monkeypatch.setattr(datasets, "load_dataset", refuse)
        with pytest.raises(DataError, match=text):
            load_data("someone/tiles")


def test_a_folder_with_configurations_is_read_as_the_hub_would(tmp_path: Path) -> None:
    for name, rows in (("easy", [ROW]), ("hard", [ROW, ROW])):
        write_parquet(tmp_path / "set" / name / "train.parquet", rows)
    head = "".join(f"- config_name: {name}\n  data_files: {name}/*.parquet\n" for name in ("easy", "hard"))
    made(tmp_path / "set" / "README.md", f"---\nconfigs:\n{head}---\n# Tiles\n".encode())
    counts = [len(load_data(str(tmp_path / "set"), options={"subset": name}).examples) for name in ("easy", "hard")]
    assert counts == [1, 2]
    with pytest.raises(DataError, match=r"--data_options\.subset NAME"):
        load_data(str(tmp_path / "set"))
    head = "- config_name: easy\n  data_files: https://example.com/a.parquet\n"
    made(tmp_path / "set" / "README.md", f"---\nconfigs:\n{head}---\n".encode())
    with pytest.raises(DataError, match="names files outside of its folder"):
        load_data(str(tmp_path / "set"))


def test_a_clone_of_the_hub_with_its_card_is_read(tmp_path: Path) -> None:
    folder = hub_layout(tmp_path)
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", ours(CELLS)[:1])
    files = "".join(f"  - split: {split}\n    path: data/{split}-*\n" for split in ("train", "test"))
    head = f"configs:\n- config_name: default\n  data_files:\n{files}license_link: https://example.com/terms\n"
    made(folder / "README.md", f"---\nlicense: mit\n{head}---\n# Tiles\n".encode())
    counts = [len(load_data(str(folder), split=split, verify_images=True).examples) for split in ("train", "test")]
    assert counts == [3, 1]
    with pytest.raises(DataError, match="choose one with --split NAME"):
        load_data(str(folder), split="validation")


def test_a_benchmark_as_tsv_is_read(tmp_path: Path) -> None:
    shown = base64.b64encode(BYTES[0]).decode()
    row = {"index": 0, "image": shown, "question": "Which color?", "A": "red", "B": "blue", "answer": "A", "l2": "x"}
    (example,) = load_data(str(write_cells(tmp_path / "a.tsv", [row], "\t")), verify_images=True).examples
    assert (example.choices, example.answer, len(example.images)) == (("red", "blue"), "A", 1)


def test_a_large_table_is_read_a_few_rows_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.Table.from_pylist([ROW | {"id": k} for k in range(1000)])
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=100)
    read: list[int] = []
    original = table_bombs.read_parquet_batches

    def counting(file: Path) -> Iterator[Any]:
        for batch in original(file):
            read.append(len(batch))
            yield batch

    monkeypatch.setattr(tables, "read_parquet_batches", counting)
    stream = stream_data(str(tmp_path / "a.parquet"))
    next(stream)
    assert sum(read) <= 200


@pytest.mark.parametrize("name", ["my.parquet", "my.tsv", "my.tar.gz", "my.tar", "my.arrow"])
def test_results_are_named_after_the_file_without_its_suffix(name: str, tmp_path: Path) -> None:
    assert result_folder_name(str(tmp_path / name), "test") == "my-test"


KINDS = datasets.ClassLabel(names=["dog", "cat"])
TEXT = datasets.Value("string")
# (features beside the question, their values, the answer and the choices; None for a bad row)
LABELLED = [
    ({"answer": KINDS}, {"answer": 1}, ("cat", ())),
    ({"answer": KINDS}, {"answer": -1}, None),  # no label
    ({"answer": datasets.List(KINDS)}, {"answer": [1, 0]}, ("cat", ())),
    ({"answer": TEXT, "choices": datasets.List(KINDS)}, {"answer": "B", "choices": [0, 1]}, ("B", ("dog", "cat"))),
    ({"solution": {"text": KINDS}}, {"solution": {"text": 1}}, ("cat", ())),
    ({"answers": datasets.List({"text": KINDS})}, {"answers": [{"text": 1}]}, ("cat", ())),
    ({"answer": datasets.Value("int64"), "label": KINDS}, {"answer": 1, "label": 1}, ("1", ())),  # a number
]


@pytest.mark.parametrize("form", ["parquet", "arrow", "save_to_disk", "hub"])
def test_a_label_is_its_name(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k, (features, values, expected) in enumerate(LABELLED):
        kinds = datasets.Features({"question": TEXT, **features})
        table = datasets.Dataset.from_list([{"question": "Which animal?", **values}], features=kinds)
        name = str(tmp_path / f"{k}")
        if form == "hub":
            monkeypatch.setattr(datasets, "load_dataset", lambda *_, table=table, **__: table.to_iterable_dataset())
            name = "owner/name"
        elif form == "save_to_disk":
            table.save_to_disk(name)
        elif form == "parquet":
            table.to_parquet(name := f"{name}.parquet")
        else:
            with pa.OSFile(name := f"{name}.arrow", "wb") as sink, pa.ipc.new_stream(sink, kinds.arrow_schema) as out:
                out.write_table(table.data.table.cast(kinds.arrow_schema))
        loaded = load_data(name, on_bad_row="drop")
        found = [(example.answer, example.choices) for example in loaded.examples]
        assert found == ([] if expected is None else [expected]), values


def test_a_label_without_a_name_is_a_bad_row(tmp_path: Path) -> None:
    kinds = datasets.Features({"question": TEXT, "answer": datasets.ClassLabel(names=["dog"])})
    table = pa.table({"question": ["Which?", "Which?"], "answer": [0, 3]}, schema=kinds.arrow_schema)
    pq.write_table(table, tmp_path / "a.parquet")
    loaded = load_data(str(tmp_path / "a.parquet"), on_bad_row="drop")
    assert [example.answer for example in loaded.examples] == ["dog"]
    assert [bad.problems for bad in loaded.bad_rows] == [("not_text",)]
    assert "{'ClassLabel of 1 names': 3}" in loaded.bad_rows[0].text


# (`split` of the rows, how many `train` has, what a warning says)
ROW_SPLITS = [
    (["train", "test"], 1, ""),
    ([float("nan"), None, "", " "], 4, ""),  # joined files
    (["Train", "TRAIN ", "Test"], 2, ""),
    (["train", "training", "Training"], 1, "rows of split 'training' 1, 'Training' 1 are not read as 'train'"),
]


@pytest.mark.parametrize(("splits", "count", "warning"), ROW_SPLITS)
def test_no_row_of_a_split_disappears(
    splits: list[Any], count: int, warning: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = write_lines(tmp_path / "a.jsonl", [{"question": "Which?", "answer": "b", "split": one} for one in splits])
    assert len(load_data(str(file)).examples) == count
    assert warning in caplog.text
    assert bool(caplog.records) == bool(warning)


def ask(**values: Any) -> bytes:
    return json.dumps({"question": "Which?", "answer": "red"} | values).encode()


def named_part(name: str) -> dict[str, Any]:
    return {"type": "image", "image": name}


TEN = sorted(f"{k}.png" for k in range(1, 11))
SPOKEN = [
    {"role": "user", "content": [named_part("b.png"), named_part("a.png"), {"type": "text", "text": "Which?"}]},
    {"role": "assistant", "content": completion("It is red.", "red")},
]
# (members that are pictures, the row, the order that they are read in, or the problem)
MEMBERS = [
    (["after.png", "before.png"], ask(images=["000000.before.png", "000000.after.png"]), ["before.png", "after.png"]),
    (["after.png", "before.png"], ask(images=["before.png", "after.png"]), ["before.png", "after.png"]),
    (["after.png", "before.png"], ask(images=["pics/000000.before.jpg", "after"]), ["before.png", "after.png"]),
    (["after.png", "before.png"], ask(images="['before.png', 'after.png']"), ["before.png", "after.png"]),
    (["after.png", "before.png"], ask(image_1="before.png", image_2="after.png"), ["before.png", "after.png"]),
    (["a.png", "b.png"], ask(images=[{"path": "b.png"}, {"path": "a.png"}]), ["b.png", "a.png"]),
    (["a.png", "b.png"], json.dumps({"messages": SPOKEN}).encode(), ["b.png", "a.png"]),
    (["mask.png", "png"], ask(image="000000.png"), ["png"]),  # inspect names the other one
    (["mask.png", "png"], ask(), "unread_image"),
    (["after.png", "before.png"], ask(), "unread_image"),
    (["png", "jpg"], ask(), "unread_image"),
    (["png", "1.png"], ask(), "unread_image"),
    (["1.png", "1.jpg"], ask(), "unread_image"),
    (["after.png"], ask(images=["after.png", "before.png"]), "missing_image"),
    (["0.png"], ask(images=["x/u.png", "x/v.png"]), "missing_image"),
    (["1.png", "0.png"], ask(images=["x/u.png", "x/v.png"]), ["0.png", "1.png"]),  # the names before packing
    (["png"], ask(image="coco/17.jpg"), ["png"]),
    (TEN, ask(), [f"{k}.png" for k in range(1, 11)]),
    (["view-10.png", "view-9.jpg"], ask(), ["view-9.jpg", "view-10.png"]),
    (["10_left.png", "9_right.png"], ask(), ["9_right.png", "10_left.png"]),
    (["p1.s2.png", "p1.s10.png"], ask(), ["p1.s2.png", "p1.s10.png"]),
    (["001.png", "000.png"], ask(), ["000.png", "001.png"]),
]


@pytest.mark.parametrize(("members", "row", "expected"), MEMBERS)
def test_pictures_of_an_archive_are_in_the_order_of_their_row(
    members: list[str], row: bytes, expected: list[str] | str, tmp_path: Path
) -> None:
    shown = {name: picture(f"rgb({k},0,0)") for k, name in enumerate(members)}
    file = write_tar(tmp_path / "a.tar", [{**shown, "json": row}])
    loaded = load_data(str(file), on_bad_row="drop")
    if isinstance(expected, str):
        assert [bad.problems for bad in loaded.bad_rows] == [(expected,)]
        return
    (example,) = loaded.examples
    assert [open_image(image).getpixel((0, 0)) for image in example.images] == [
        (members.index(name), 0, 0) for name in expected
    ]
    assert [name for name in example.meta if name.endswith("png")] == sorted({*members} - {*expected})
