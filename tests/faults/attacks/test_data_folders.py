"""Folders of data from strangers: their headers, links and special files. Nothing outside is read or fetched."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.faults.attacks.attack import assert_refused, run_balanced

ROW = json.dumps({"id": "a", "question": "q ?", "think": "t .", "answer": "red"})
SECRET = ROW.replace("red", "SECRET")
CONVERT = ["convert", "d", "--out", "o.jsonl"]
DEEP = '{"question": "q", "answer": "a", "meta": ' + "[" * 100_000 + "]" * 100_000 + "}"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in pairwise("abcdefghi")
)


def config(data_files: str, more: str = "") -> str:
    return f"configs:\n- config_name: default\n  data_files: {data_files}\n{more}"


# (what it is, the header of README.md, what is said)
HEADERS: list[tuple[str, str, str]] = [
    ("aliases of aliases", config("*i").replace("configs", BOMB + "configs"), "more than 20,000 values"),
    ("a bomb beside it", config("x.jsonl", BOMB), "more than 20,000 values"),
    ("deep lists", "configs: " + "[" * 20_000, "nested more than 50 levels"),
    ("a header of 2 MB", config("x.jsonl", "license: " + "x" * 2**21), "a header of more than 1,048,576 bytes"),
    ("a list in itself", "configs: &a [*a]", "inside of what it stands for"),
    ("numbers as configurations", "configs: [1, 2]", "not a list of mappings"),
    ("a mapping of them", "configs: {a: 1}", "not a list of mappings"),
    ("5,000 digits", config("x.jsonl", f"  x: {'9' * 5_000}"), "a number has 5000 digits"),
    ("a program", config("!!python/object/apply:os.system ['touch pwned']"), "could not determine a constructor"),
    ("half a character", config('"\\ud800.jsonl"'), "half of a surrogate pair"),
    ("a file above", config("../secret.jsonl"), "names files outside"),
    ("the same, escaped", config('"\\x2e\\x2e/secret.jsonl"'), "names files outside"),
    ("in a list", config("[x.jsonl, ../secret.jsonl]"), "names files outside"),
    ("in a split", config("[{split: train, path: ../secret.jsonl}]"), "names files outside"),
    ("from the root", config("/etc/passwd"), "names files outside"),
    ("of Windows", config("'..\\secret.jsonl'"), "names files outside"),
    ("of the user", config("~/secret.jsonl"), "names files outside"),
    ("a folder above", config("x.jsonl", "  data_dir: .."), "names files outside"),
    ("an address", config("http://127.0.0.1:9/x.jsonl"), "names files outside"),
    ("the same, escaped", config('"http:\\x2f/127.0.0.1:9/x.jsonl"'), "names files outside"),
    ("by an alias", f"x: &u http://127.0.0.1:9/x.jsonl\n{config('*u')}", "names files outside"),
    (
        "by a merge",
        "x: &m {data_files: 'http://127.0.0.1:9/x'}\nconfigs:\n- config_name: default\n  <<: *m",
        "outside",
    ),
    ("in other brackets", "{configs: [{config_name: a, data_files: 'http://127.0.0.1:9/x'}]}", "names files outside"),
    ("under a key in quotes", config("http://127.0.0.1:9/x").replace("configs", '"configs"'), "names files outside"),
    ("of the hub", config("hf://datasets/a/b.jsonl"), "names files outside"),
    ("a chain of file systems", config("zip://a::x.zip"), "names files outside"),
    ("JSON that is deep", config("deep.jsonl"), "too_deep"),  # which ended the process
    ("an array that is deep", config("deep.json"), "brackets are nested"),
    ("101 patterns", config("[" + ", ".join(f"'{k}*'" for k in range(101)) + "]"), "101 patterns"),
    ("a pattern of stars", config("'" + "*a" * 500 + "'"), "no file that can be read"),
    ("stars of folders", config("'" + "**/" * 500 + "b'"), "no file that can be read"),
    ("another kind of file", config("x.txt"), "no file that can be read"),
]


@pytest.mark.parametrize(("header", "said"), [row[1:] for row in HEADERS], ids=[row[0] for row in HEADERS])
def test_a_hostile_header_reads_no_other_file(header: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text(SECRET)
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "README.md").write_text(f"---\n{header}\n---\n# x\n")
    (folder / "x.jsonl").write_text(f"{ROW}\n")
    (folder / "x.txt").write_text("x")
    if "deep.json" in header:
        (folder / "deep.jsonl").write_text(DEEP)
        (folder / "deep.json").write_text(f"[{DEEP}]")
    result = run_balanced(CONVERT, tmp_path, memory_mib=128)
    assert_refused(result, said)


def test_a_sound_header_names_its_files(tmp_path: Path) -> None:
    (tmp_path / "d/sub").mkdir(parents=True)
    (tmp_path / "d/sub/part-0.jsonl").write_text(ROW)
    (tmp_path / "d/other.jsonl").write_text(SECRET)
    for pattern in ("sub/*", "./sub/part-0.jsonl", "'**/part-[0-9].jsonl'", "sub/**", "{train: [sub/p*]}"):
        (tmp_path / "d/README.md").write_text(f"---\n{config(pattern)}---\n")
        result = run_balanced(CONVERT, tmp_path)
        assert (result.code, result.sentence) == (0, "1 rows"), result
        assert "SECRET" not in (tmp_path / "o.jsonl").read_text()
        (tmp_path / "o.jsonl").unlink()


@pytest.mark.parametrize("target", [".", "..", "d"])
def test_circles_of_links_are_no_hang(target: str, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    (folder / "d").mkdir(parents=True)
    (folder / "rows.jsonl").write_text(ROW)
    for place in (folder, folder / "d"):
        for k in range(60):
            (place / f"link-{k}").symlink_to(target)
    for argv in (CONVERT, ["inspect", "d"]):
        assert run_balanced(argv, tmp_path, seconds=5).code == 0


def test_a_link_to_another_split_is_followed(tmp_path: Path) -> None:
    (tmp_path / "d/test").mkdir(parents=True)
    (tmp_path / "d/test/rows.jsonl").write_text(ROW)
    (tmp_path / "d/validation").symlink_to("test")
    for split in ("test", "validation"):
        assert run_balanced(["inspect", "d", "--split", split], tmp_path).code == 0


@pytest.mark.parametrize("name", ["d.jsonl", "d.json", "d.csv", "d.parquet", "d.tar", "d.txt"])
@pytest.mark.parametrize("kind", ["pipe", "device", "loop"])
def test_rows_that_are_no_file_are_never_waited_for(kind: str, name: str, tmp_path: Path) -> None:
    place = tmp_path / name
    if kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to({"device": "/dev/zero", "loop": place}[kind])
    assert_refused(run_balanced(["inspect", name], tmp_path, seconds=3), name)


@pytest.mark.parametrize("text", ["[]", "null", '{"splits": {"a": "b"}}', '{"features": {"a": 5}}', "[" * 100_000])
@pytest.mark.parametrize("name", ["dataset_info.json", "state.json"])
def test_a_saved_table_of_other_types_is_named(name: str, text: str, tmp_path: Path) -> None:
    from datasets import Dataset

    table = pa.table({"question": ["q ?"], "think": ["t ."], "answer": ["red"]})
    Dataset(table).save_to_disk(tmp_path / "d")
    (tmp_path / "d" / name).write_text(text)
    assert_refused(run_balanced(CONVERT, tmp_path), "d cannot be read")


def test_the_header_of_a_known_data_set_s_folder_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    pq.write_table(pa.table({"question": ["q ?"], "answer": ["red"]}), tmp_path / "d/train-00000-of-00001.parquet")
    (tmp_path / "d/README.md").write_text(f"---\n{config('http://127.0.0.1:9/x.parquet')}---\n")
    assert_refused(run_balanced(["convert", "scienceqa:d", "--out", "o.jsonl"], tmp_path), "names files outside")
