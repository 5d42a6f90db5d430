"""Every form in which people have their data gives the same examples, and `convert` writes each as our own."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from balanced_thinking.cli import main
from balanced_thinking.data.bad_rows import DataError
from balanced_thinking.data.example import Example
from balanced_thinking.data.images import open_image
from balanced_thinking.data.load import load_data

COLORS = ("red", "lime", "blue")
SAID = [
    (f"How many {color} tiles are there?", f"I count {k + 2} of them.", str(k + 2)) for k, color in enumerate(COLORS)
]


def picture(color: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (6, 4), color).save(stream, "PNG")
    return stream.getvalue()


def completion(think: str, answer: str) -> str:
    return f"<think>{think}</think><answer>{answer}</answer>"


def cell(color: str) -> dict[str, Any]:
    """A picture as `datasets` stores it."""
    return {"bytes": picture(color), "path": None}


def save_pictures(folder: Path) -> list[str]:
    """Pictures beside the data, and their relative paths."""
    (folder / "pics").mkdir(parents=True, exist_ok=True)
    for color in COLORS:
        (folder / "pics" / f"{color}.png").write_bytes(picture(color))
    return [f"pics/{color}.png" for color in COLORS]


def ours(pictures: list[Any], name: str = "image") -> list[dict[str, Any]]:
    return [
        {"question": q, "think": t, "answer": a, name: shown} for (q, t, a), shown in zip(SAID, pictures, strict=True)
    ]


def write_lines(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def pack(file: Path) -> Path:
    packed = file.with_name(f"{file.name}.gz")
    packed.write_bytes(gzip.compress(file.read_bytes()))
    return packed


def write_parquet(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


def write_cells(file: Path, rows: list[dict[str, Any]], delimiter: str) -> Path:
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return file


def as_features(rows: list[dict[str, Any]], name: str, feature: Any) -> datasets.Dataset:
    return datasets.Dataset.from_list(rows).cast_column(name, feature)


def write_tar(file: Path, samples: list[dict[str, bytes]], mode: str = "w") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, mode) as archive:
        for k, sample in enumerate(samples):
            for suffix, data in sample.items():
                info = tarfile.TarInfo(f"{k:06d}.{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return file


def turns(roles: tuple[str, str], keys: tuple[str, str], mark: str = "") -> list[list[dict[str, str]]]:
    """Conversations with these names for who speaks, and for what is said."""
    who, what = keys
    return [[{who: roles[0], what: mark + q}, {who: roles[1], what: completion(t, a)}] for q, t, a in SAID]


CELLS = [cell(color) for color in COLORS]
BYTES = [picture(color) for color in COLORS]


def hub_layout(folder: Path) -> Path:
    as_features(ours(CELLS), "image", datasets.Image()).to_parquet(folder / "set/data/train-00000-of-00001.parquet")
    return folder / "set"


def saved(folder: Path) -> Path:
    as_features(ours([[one] for one in CELLS], "images"), "images", datasets.List(datasets.Image())).save_to_disk(
        folder / "saved"
    )
    return folder / "saved"


def saved_splits(folder: Path) -> Path:
    rows = as_features(ours(CELLS), "image", datasets.Image())
    datasets.DatasetDict(train=rows, test=rows.select([0])).save_to_disk(folder / "splits")
    return folder / "splits"


def arrow_file(folder: Path) -> Path:
    return next(saved(folder).glob("*.arrow"))


def sharegpt(folder: Path) -> Path:
    rows = [
        {"conversations": talk, "images": [path]}
        for talk, path in zip(turns(("human", "gpt"), ("from", "value")), save_pictures(folder), strict=True)
    ]
    (folder / "sharegpt.json").write_text(json.dumps(rows, indent=1))
    return folder / "sharegpt.json"


def llava(folder: Path) -> Path:
    talks = turns(("human", "gpt"), ("from", "value"), "<image>\n")
    pictures = save_pictures(folder)
    rows = [{"id": str(k), "image": path, "conversations": talks[k]} for k, path in enumerate(pictures)]
    (folder / "llava.json").write_text(json.dumps(rows))
    return folder / "llava.json"


def swift_rows(pictures: list[Any]) -> list[dict[str, Any]]:
    return [
        {"system": "", "query": f"<image>{q}", "response": completion(t, a), "history": [], "images": [shown]}
        for (q, t, a), shown in zip(SAID, pictures, strict=True)
    ]


def alpaca_rows(pictures: list[Any]) -> list[dict[str, Any]]:
    rows = []
    for (q, t, a), shown in zip(SAID, pictures, strict=True):
        rows.append({"instruction": q, "input": "", "output": completion(t, a), "images": [shown]})
    return rows


def problem_rows(pictures: list[Any]) -> list[dict[str, Any]]:
    return [
        {"problem": q, "solution": completion(t, a), "image": shown}
        for (q, t, a), shown in zip(SAID, pictures, strict=True)
    ]


def imagefolder(folder: Path, write: Callable[[Path, list[dict[str, Any]]], Any]) -> Path:
    place = folder / "imagefolder" / "train"
    names = save_pictures(place)
    write(
        place,
        [
            {"file_name": name, "question": q, "think": t, "answer": a}
            for (q, t, a), name in zip(SAID, names, strict=True)
        ],
    )
    return folder / "imagefolder"


def tar_samples() -> list[dict[str, bytes]]:
    return [
        {"png": shown, "json": json.dumps({"question": q, "think": t, "answer": a}).encode()}
        for (q, t, a), shown in zip(SAID, BYTES, strict=True)
    ]


SHOWN_ROW = json.dumps({"question": "Which?", "answer": "red"}).encode()


@pytest.mark.parametrize(
    ("suffix", "problem"),
    [("mp4", "unread_media"), ("wav", "unread_media"), ("heic", "broken_image"), ("AVIF", "broken_image")],
)
def test_a_member_that_is_not_read_is_missing_in_its_row(suffix: str, problem: str, tmp_path: Path) -> None:
    file = write_tar(tmp_path / "a.tar", [{suffix: b"0", "json": SHOWN_ROW}, {"npy": b"0", "json": SHOWN_ROW}])
    loaded = load_data(str(file), on_bad_row="drop")
    assert [bad.problems for bad in loaded.bad_rows] == [(problem,)]
    assert len(loaded.examples) == 1  # an array beside a row is no part of it
    file = write_tar(tmp_path / "two.tar", [{"png": BYTES[0], "svg": b"0", "json": SHOWN_ROW, "meta.json": b"{}"}])
    assert len(load_data(str(file)).examples[0].images) == 1  # another form of the picture, and a file about the row
    file = write_tar(tmp_path / "empty.tar", [{"png": b"", "json": SHOWN_ROW}])
    assert load_data(str(file), on_bad_row="drop", verify_images=True).bad_rows[0].problems == ("broken_image",)


def test_an_archive_that_is_sorted_by_kind_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, data in (("0.png", BYTES[0]), ("1.png", BYTES[1]), ("0.json", SHOWN_ROW), ("1.json", SHOWN_ROW)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    with pytest.raises(DataError, match="0 has json here and png further up; the members of a sample must follow"):
        load_data(str(tmp_path / "a.tar"), on_bad_row="drop")


def test_samples_whose_names_have_a_dot_are_not_joined(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "a.tar", [{"1.json": SHOWN_ROW, "1.png": BYTES[0], "2.json": SHOWN_ROW}])
    (bad,) = load_data(str(file), on_bad_row="drop").bad_rows
    assert (bad.problems, bad.text) == (("joined_samples",), "000000.2.json")


def tar_texts() -> list[dict[str, bytes]]:
    return [
        {"question.txt": q.encode(), "think.txt": t.encode(), "answer.txt": a.encode(), "0.png": shown}
        for (q, t, a), shown in zip(SAID, BYTES, strict=True)
    ]


def base64_rows() -> list[dict[str, Any]]:
    return [
        {"index": k, "image": base64.b64encode(BYTES[k]).decode(), "question": q, "think": t, "answer": a}
        for k, (q, t, a) in enumerate(SAID)
    ]


def write_shards(folder: Path, name: str, rows: list[Any], write: Callable[[Path, list[Any]], Path]) -> Path:
    """A folder with one file for each row."""
    for k, row in enumerate(rows):
        write(folder / "set" / name.format(k), [row])
    return folder / "set"


Form = Callable[[Path], Path]
FORMS: dict[str, Form] = {
    "json lines, paths": lambda at: write_lines(at / "a.jsonl", ours(save_pictures(at))),
    "ndjson": lambda at: write_lines(at / "a.ndjson", ours(save_pictures(at))),
    "csv": lambda at: write_cells(at / "a.csv", ours(save_pictures(at)), ","),
    "tsv": lambda at: write_cells(at / "a.tsv", ours(save_pictures(at)), "\t"),
    "tsv with pictures in base64": lambda at: write_cells(at / "a.tsv", base64_rows(), "\t"),
    "parquet, dicts": lambda at: write_parquet(at / "a.parquet", ours(CELLS)),
    "parquet, lists of dicts": lambda at: write_parquet(at / "a.parquet", ours([[one] for one in CELLS], "images")),
    "parquet, bytes": lambda at: write_parquet(at / "a.parquet", ours(BYTES)),
    "parquet, lists of bytes": lambda at: write_parquet(at / "a.parquet", ours([[one] for one in BYTES], "images")),
    "parquet, paths": lambda at: write_parquet(at / "a.parquet", ours(save_pictures(at))),
    "parquet, dicts of paths": lambda at: write_parquet(
        at / "a.parquet", ours([{"bytes": None, "path": path} for path in save_pictures(at)])
    ),
    "the hub's layout": hub_layout,
    "parquet named after its split": lambda at: write_parquet(at / "set/train.parquet", ours(CELLS)).parent,
    "parquet shards without a split": lambda at: write_shards(at, "part-{}.parquet", ours(CELLS), write_parquet),
    "save_to_disk": saved,
    "save_to_disk with splits": saved_splits,
    "arrow": arrow_file,
    "webdataset": lambda at: write_tar(at / "a.tar", tar_samples()),
    "webdataset, compressed": lambda at: write_tar(at / "a.tar.gz", tar_samples(), "w:gz"),
    "webdataset, texts": lambda at: write_tar(at / "a.tar", tar_texts()),
    "webdataset shards": lambda at: write_shards(at, "train-0000{}.tar", tar_samples(), write_tar),
    "imagefolder, csv": lambda at: imagefolder(at, lambda to, rows: write_cells(to / "metadata.csv", rows, ",")),
    "imagefolder, jsonl": lambda at: imagefolder(at, lambda to, rows: write_lines(to / "metadata.jsonl", rows)),
    "imagefolder, parquet": lambda at: imagefolder(at, lambda to, rows: write_parquet(to / "metadata.parquet", rows)),
    "sharegpt, an array": sharegpt,
    "json lines, packed": lambda at: pack(write_lines(at / "p.jsonl", swift_rows(save_pictures(at)))),
    "an array, packed": lambda at: pack(sharegpt(at)),
    "llava": llava,
    "messages": lambda at: write_lines(
        at / "m.jsonl",
        [
            {"messages": talk, "images": [path]}
            for talk, path in zip(turns(("user", "assistant"), ("role", "content")), save_pictures(at), strict=True)
        ],
    ),
    "ms-swift": lambda at: write_lines(at / "s.jsonl", swift_rows(save_pictures(at))),
    "ms-swift in parquet": lambda at: write_parquet(at / "s.parquet", swift_rows(CELLS)),
    "alpaca": lambda at: write_lines(at / "a.jsonl", alpaca_rows(save_pictures(at))),
    "problem and solution": lambda at: write_parquet(at / "p.parquet", problem_rows(CELLS)),
}


def look(example: Example) -> tuple[Any, ...]:
    """What an example is, whatever its data set calls it."""
    pixels = [(image.size, image.getpixel((0, 0))) for image in map(open_image, example.images)]
    return example.question, example.think, example.answer, pixels


@pytest.fixture(scope="module")
def expected() -> list[tuple[Any, ...]]:
    shown = [((6, 4), Image.new("RGB", (1, 1), color).getpixel((0, 0))) for color in COLORS]
    return [(q, t, a, [pixels]) for (q, t, a), pixels in zip(SAID, shown, strict=True)]


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_examples(name: str, tmp_path: Path, expected: list[Any]) -> None:
    place = FORMS[name](tmp_path)
    loaded = load_data(str(place), verify_images=True)
    assert [look(example) for example in loaded.examples] == expected
    assert len({example.id for example in loaded.examples}) == len(COLORS)
    assert main(["convert", str(place), "--out", str(tmp_path / "out" / "again.jsonl")]) == 0
    again = load_data(str(tmp_path / "out" / "again.jsonl"), verify_images=True)
    assert [look(example) for example in again.examples] == expected
    assert [example.id for example in again.examples] == [example.id for example in loaded.examples]
