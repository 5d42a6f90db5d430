"""YAML from strangers: recipes, studies and lists of benchmarks. Each ends in a sentence, in little time and memory."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.yaml import MOST_BYTES, read_yaml
from tests.faults.attacks.attack import assert_refused, run_balanced

NAMES = "abcdefghi"
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in pairwise(NAMES)
)
MERGES = "m0: &m0 {k: 1}\n" + "".join(
    f"m{k}: &m{k} {{<<: [{', '.join([f'*m{k - 1}'] * 10)}], k{k}: 1}}\n" for k in range(1, 10)
)
# (what it is, the file, what is said of it)
ATTACKS: list[tuple[str, str | bytes, str]] = [
    # More than it seems.
    ("aliases of aliases", LAUGHS, "more than 20,000 values, with those that aliases stand for"),
    ("merged mappings of merged mappings", MERGES, "more than 20,000 values"),
    ("deep lists", "a: " + "[" * 100_000, "line 1, column 53 is not valid YAML: values are nested more than 50 levels"),
    ("deep mappings", "{a: " * 50_000, "nested more than 50 levels"),
    ("deep blocks", "- " * 10_000 + "x", "nested more than 50 levels"),
    ("a list in itself", "a: &a [*a]\n", "the alias *a is inside of what it stands for"),
    ("a mapping in itself", "model: &a {b: *a}\n", "the alias *a is inside"),
    ("a text of 2 MB", "model: " + "x" * 2 * MOST_BYTES, "bytes; expected YAML of at most 1,048,576"),
    ("20,000 keys", "\n".join(f"k{k}: 1" for k in range(20_000)), "more than 20,000 values"),
    ("a key of 100 kB", "? " + "x" * 100_000 + "\n: 1", "characters"),
    # Tags and values that PyYAML builds with Python.
    ("a program", "model: !!python/object/apply:os.system ['touch pwned']\n", "could not determine a constructor"),
    ("a module", "model: !!python/name:os.system\n", "could not determine a constructor"),
    (
        "a date that is none",
        "arm: 2020-13-45",
        "line 1, column 6 is not valid YAML: '2020-13-45' cannot be read as timestamp (month must be in",
    ),
    ("a time that is none", "arm: 2020-01-01 99:99:99", "hour must be in 0..23"),
    ("an offset that is none", "arm: 2001-12-14t21:59:43.10-99:99", "strictly between"),
    ("an integer of 5,000 digits", "limit: " + "9" * 5_000, "a number has 5000 digits"),
    ("a hexadecimal one", "limit: 0x" + "f" * 5_000, "a number has 5002 digits"),
    ("one to the base of 60", "limit: 1" + ":1" * 5_000, "a number has 10001 digits"),
    ("a float of 5,000 digits", "limit: " + "9" * 5_000 + ".0", "a number has 5002 digits"),
    ("base64 that is none", "model: !!binary |\n  x", "failed to decode base64"),
    ("a list as a key", "? [a]\n: b\n", "found unhashable key"),
    # Something else than keys and values.
    ("a list", "- a\n", "holds ['a']; expected a mapping"),
    ("a number", "5", "holds 5; expected a mapping"),
    ("a date", "2020-01-01", "holds datetime.date(2020, 1, 1); expected a mapping"),
    ("a set", "!!set {a}", "expected a mapping"),
    ("two documents", "model: a\n---\nmodel: b\n", "but found another document"),
    ("no UTF-8", b"\xff\xfe\x00", "expected text in UTF-8"),
    ("a zero", b"model: a\0b\n", "expected text in UTF-8 without control characters"),
    ("a zero, escaped", 'model: "a\\0b"\n', "a zero byte or half of a surrogate pair"),
    ("half a character", 'arm: "\\ud800"\n', "a zero byte or half of a surrogate pair"),
    ("a variable of 10,000 letters", "model: $" + "A" * 10_000, "is not set"),
    ("a model of 10,000 letters", "model: " + "a/" * 5_000, "too long"),
    ("data of 10,000 letters", "model: tiny:qwen2\ndata: " + "a" * 10_000, "too long"),
]


@pytest.mark.parametrize(("text", "said"), [row[1:] for row in ATTACKS], ids=[row[0] for row in ATTACKS])
def test_a_hostile_recipe_is_refused(text: str | bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    result = run_balanced(["sft", "--config", "r.yaml", "--out", "run"], tmp_path, memory_mib=128)
    assert_refused(result, said)
    assert {place.name for place in tmp_path.iterdir()} == {"r.yaml"}


@pytest.mark.parametrize(
    "argv", [["study", "r.yaml", "--out", "runs"], ["eval", "--model", "tiny:qwen2", "--benchmarks", "r.yaml"]]
)
def test_other_files_of_yaml_are_read_alike(argv: list[str], tmp_path: Path) -> None:
    for text, said in ((LAUGHS, "aliases"), ("a: " + "[" * 10_000, "nested"), ("x" * 2 * MOST_BYTES, "at most")):
        (tmp_path / "r.yaml").write_text(text)
        assert_refused(run_balanced(argv, tmp_path, memory_mib=128), "r.yaml", said, code=2)


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "loop", "dangling link"])
def test_a_recipe_that_is_no_file_is_never_waited_for(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "r.yaml"
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to({"device": "/dev/zero", "loop": place, "dangling link": tmp_path / "none"}[kind])
    for argv in (["sft", "--config"], ["study", "--out", "runs"], ["eval", "--model", "tiny:qwen2", "--benchmarks"]):
        assert_refused(run_balanced([*argv, "r.yaml"], tmp_path, seconds=2), "r.yaml", code=2)


# Values of the command line, which are YAML, too, and the names that they may be.
VALUES: list[tuple[list[str], str]] = [
    (["sft", "--model", "tiny:qwen2", "--data", "world", "--max_steps", "9" * 5_000], "a number has 5000 digits"),
    (["sft", "--model", "tiny:qwen2", "--data_options.n", "[" * 10_000], "nested"),
    (["sft", "--x" + "y" * 10_000, "1"], "unknown option"),
    (["eval", "--model", "tiny:qwen2", "--data", "world", "--batch-size", "9" * 5_000], "expected an integer"),
    (["eval", "--model", "tiny:qwen2", "--data", "world", "--batch-size", ""], "expected an integer"),
    (["eval", "--model", "a\0b", "--data", "world"], "a\\x00b"),
    (["eval", "--model", "a" * 10_000, "--data", "world"], "aaaa"),
    (["inspect", "a\0b"], "a\\x00b"),
    (["inspect", "a" * 10_000], "aaaa"),
    (["inspect", ""], "inspect"),
    (["inspect", "\x1b[31mred"], "\\x1b[31mred"),
    (["convert", "world", "--data_options.n", "1", "--out", ""], "convert"),
    (["convert", "world", "--data_options.n", "1", "--out", "-x"], "--out"),
    (["convert", "world", "--data_options.n", "1", "--out", "a\0b.jsonl"], "null"),
    (["convert", "world", "--data_options.n", "1", "--out", "a" * 10_000 + ".jsonl"], "too long"),
    (["convert", "world", "--data_options.n", "1", "--out", "/"], "/"),
    (["report", "\ud800"], "\\ud800"),
    (["study", "\0", "--out", "x"], "there is no study"),
    (["sft", "--model", "tiny:qwen2", "--data", "world", "--out", "a\0b"], "null"),
]


@pytest.mark.parametrize(("argv", "said"), VALUES)
def test_a_hostile_value_of_the_command_line_is_refused(argv: list[str], said: str, tmp_path: Path) -> None:
    assert_refused(run_balanced(argv, tmp_path, memory_mib=128), said)


def test_ordinary_yaml_stays_as_it_is() -> None:
    text = "base: &b {x: 1, y: [a, 2.5, null]}\nmore: {<<: *b, y: yes}\nlast: *b\ndate: 2020-01-01\n"
    found = read_yaml(text, "here")
    assert found["more"] == {"x": 1, "y": True}
    assert found["last"] == found["base"] == {"x": 1, "y": ["a", 2.5, None]}
    with pytest.raises(RecipeError, match=r"here, line 2, column 1 .* the key 'a' occurs twice"):
        read_yaml("a: 1\na: 2", "here")
