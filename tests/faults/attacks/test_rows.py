"""Rows from strangers: each is refused by its file and row, or read, in little time and memory."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from balanced_thinking.config.foreign_json import DepthGuard, TooDeepError, TooLargeError, is_too_deep, read_json
from balanced_thinking.data import records, unpacking
from tests.faults.attacks.attack import assert_refused, run_balanced

GOOD = b'{"id": "g", "question": "What color ?", "think": "it is red .", "answer": "red"}'
DEEP, DIGITS = 100_000, b"9" * 5_000
BRACKETS = b"[" * DEEP + b"]" * DEEP
OBJECTS = b'{"a":' * DEEP + b"1" + b"}" * DEEP


def row(**values: Any) -> bytes:
    return json.dumps({"question": "q ?", "think": "t .", "answer": "a", **values}).encode()


# (what it is; name of the file; content, or what makes it, where that takes long; what is said, None: the row is read)
ATTACKS: list[tuple[str, str, bytes | Callable[[], bytes], str | None]] = [
    # Brackets inside each other, which took 12 GB in an array.
    ("deep list in a line", "x.jsonl", b'{"question":"q","answer":"a","meta":' + BRACKETS + b"}", "too_deep"),
    ("deep object as a line", "x.jsonl", OBJECTS, "too_deep"),
    ("deep line without its end", "x.jsonl", b'{"a":' * DEEP, "too_deep"),
    ("deep list in an array", "x.json", b'[{"question":"q","meta":' + BRACKETS + b"}]", "after row 0: brackets are"),
    ("deep object in an array", "x.json", b"[" + GOOD + b"," + OBJECTS + b"]", "x.json, after row"),
    ("deep array without its end", "x.json", b"[" * DEEP, "x.json, after row 0: brackets are nested"),
    ("deep line, packed", "x.jsonl.gz", gzip.compress(OBJECTS), "too_deep"),
    ("brackets in a text are no depth", "x.jsonl", row(think="[{" * 10_000 + '\\"' * 99 + "]"), None),
    # Numbers.
    ("answer of 5,000 digits", "x.jsonl", b'{"question":"q","think":"t","answer":' + DIGITS + b"}", "invalid_json"),
    ("the same in an array", "x.json", b'[{"question":"q","think":"t","answer":' + DIGITS + b"}]", "4300 digits"),
    ("digits in a CSV cell are text", "x.csv", b"question,answer,think\nq," + DIGITS + b",t\n", None),
    ("digits as a text", "x.jsonl", row(answer="9" * 5_000), None),
    ("an option under 5,000 digits", "x.jsonl", row(choices={"9" * 5_000: "a"}), "not_text"),
    ("1e999", "x.jsonl", b'{"question":"q","think":"t","answer":1e999}', "not_finite"),
    ("1e999 in an array", "x.json", b'[{"question":"q","think":"t","answer":1e999}]', "x.json"),
    ("Infinity", "x.jsonl", b'{"question":"q","think":"t","answer":-Infinity}', "not_finite"),
    ("1e-999999999", "x.jsonl", b'{"question":"q","think":"t","answer":1e-999999999}', None),
    ("a key twice: the last counts", "x.jsonl", b'{"question":"q","think":"t","answer":"x","answer":"y"}', None),
    # Bytes that are no UTF-8, and halves of characters, up to the files that are written.
    ("zeros", "x.jsonl", b"\0" * 1_000, "invalid_json"),
    ("UTF-16", "x.jsonl", '{"question":"q"}'.encode("utf-16"), "is UTF-16; expected UTF-8"),
    ("UTF-32", "x.jsonl", '{"question":"q"}'.encode("utf-32"), "expected UTF-8"),
    ("a byte 0xff", "x.jsonl", b'{"question":"q\xff","think":"t","answer":"a"}', "invalid_json"),
    ("a byte 0xff in an array", "x.json", b'[{"question":"q\xff","answer":"a"}]', "'utf-8' codec can't decode"),
    ("half a character as an id", "x.jsonl", row(id="\ud800"), "lone_surrogate"),
    ("as a key", "x.jsonl", row(**{"\ud800": "x"}), "lone_surrogate"),
    ("as the only key", "x.jsonl", b'{"\\ud800":"x"}', "it has \\ud800"),
    ("as a split", "x.jsonl", row(split="\ud800"), "choose a split that it has: \\ud800"),
    ("as a picture's name", "x.jsonl", row(image="\ud800.png"), "missing_image"),
    ("as an option", "x.jsonl", row(choices=["a", "\udc80"]), "lone_surrogate"),
    ("in its raw bytes", "x.json", b'[{"question":"q\xed\xa0\x80","think":"t","answer":"a"}]', "x.json"),
    ("a zero in a picture's name", "x.jsonl", row(image="a\0b.png"), "missing_image"),
    ("a picture's name of 10,000 letters", "x.jsonl", row(image="a" * 10_000 + ".png"), "missing_image"),
    # Much of everything.
    ("100,000 turns", "x.jsonl", lambda: row(messages=[{"role": "user", "content": "x"}] * DEEP), "too_many_values"),
    ("100,000 options", "x.jsonl", lambda: row(choices=[str(k) for k in range(DEEP)]), "too_many_values"),
    ("100,000 keys", "x.jsonl", lambda: row(**{f"k{k}": k for k in range(DEEP)}), "too_many_values"),
    ("100,000 pictures", "x.jsonl", row(images=["a.png"] * DEEP), "too_many_values"),
    ("a key of 1 MB", "x.jsonl", b'{"' + b"k" * 10**6 + b'":1}', "characters ..."),
    (
        "200,000 columns",
        "x.csv",
        lambda: b",".join(b"c%d" % k for k in range(2 * DEEP)) + b"\n1,2\n",
        "has 200000 columns",
    ),
    ("a row of 100,000 cells", "x.csv", b"question,answer\n" + b"x," * DEEP + b"\n", "invalid_csv"),
    ("a cell of 17 MB", "x.csv", b"question,answer\n" + b"x" * 17 * 2**20 + b",a\n", "invalid_csv"),
    ("a quote without its end", "x.csv", b'question,answer\n"' + b"x\n" * DEEP, "line 2: unexpected end"),
    ("a million empty lines", "x.jsonl", b"\n" * (10**6 + 2), "more than 1,000,000 empty lines"),
    ("a list in a list as text", "x.jsonl", row(answer="[" * 30_000 + "]" * 30_000), None),
    # Packed files.
    ("a bomb", "x.jsonl.gz", lambda: gzip.compress(b"\0" * 70 * 2**20, 1), "unpacks to more than 100 times"),
    ("without its end", "x.jsonl.gz", gzip.compress(GOOD * 99)[:50], "cannot be unpacked"),
    ("another kind", "x.jsonl.gz", b"hello", "cannot be unpacked (Not a gzipped file"),
    # What the row says must not reach a terminal.
    ("codes in an id", "x.jsonl", row(id="a\x1b[31mred\x07/../x\n", answer=""), "no_answer"),
    ("codes in a key", "x.jsonl", b'{"\\u001b[31m":"x"}', "\\x1b[31m"),
]


@pytest.mark.parametrize(("name", "content", "said"), [one[1:] for one in ATTACKS], ids=[one[0] for one in ATTACKS])
def test_a_hostile_row_is_named(
    name: str, content: bytes | Callable[[], bytes], said: str | None, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content() if callable(content) else content)
    result = run_balanced(["convert", name, "--out", "out.jsonl"], tmp_path, memory_mib=256)
    assert "\x1b" not in result.err + result.out
    if said is None:
        assert result.code == 0, result.err
        assert (tmp_path / "out.jsonl").read_text()
    else:
        assert_refused(result, said)


def test_a_long_line_is_refused_before_it_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MOST_ROW_BYTES", 1_000)
    (tmp_path / "x.jsonl").write_bytes(GOOD + b"\n" + row(question="q" * 2_000))
    assert_refused(run_balanced(["inspect", "x.jsonl"], tmp_path), "x.jsonl, row 2: the line has more than")
    (tmp_path / "x.csv").write_bytes(b"question,answer\n" + b"q" * 2_000 + b",a\n")
    assert_refused(run_balanced(["inspect", "x.csv"], tmp_path), "x.csv, row 2: the line has more than")


def test_a_bomb_is_found_by_what_is_unpacked_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "FREE_BYTES", 2**17)
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(b"\0" * 10**6) + gzip.compress(bytes(range(256)) * 2_000))
    assert_refused(run_balanced(["inspect", "x.jsonl.gz"], tmp_path), "x.jsonl.gz unpacks to more than 100 times")


class _Parts:
    """A stream that gives a few bytes at a time, whatever is asked for."""

    def __init__(self, text: bytes, size: int) -> None:
        self.parts = [text[k : k + size] for k in range(0, len(text), size)]

    def read(self, _: int = -1) -> bytes:
        return self.parts.pop(0) if self.parts else b""


def read_guarded(text: bytes, size: int, most_bytes: int = 2**20) -> None:
    guard = DepthGuard(_Parts(text, size), most_bytes)  # type: ignore[arg-type]
    while guard.read():
        pass


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_depth_does_not_depend_on_where_a_stream_is_cut(size: int) -> None:
    texts = b'[{"a\\\\": "[\\"[{", "b": ["\\\\\\"]", {"c": "\xc3\xa9"}]}]'
    read_guarded(texts * 300, size)
    with pytest.raises(TooDeepError):
        read_guarded(texts + b"[" * 201, size)
    with pytest.raises(TooLargeError):
        read_guarded(b'[{"a": "' + b"x," * 99, size, most_bytes=100)


def test_many_shallow_brackets_are_read() -> None:
    assert len(read_json("[" + "[1]," * 10_000 + "{}]", "here")) == 10_001
    assert not is_too_deep('"' + "\\" * 100_000 + '"' + "[" * 150)


def test_an_archive_that_unpacks_to_much_more_is_refused(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("a.json")
    entry.size = 70 * 2**20
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.addfile(entry, io.BytesIO(b"\0" * entry.size))
    assert_refused(run_balanced(["inspect", "x.tar.gz"], tmp_path), "x.tar.gz unpacks to more than 100 times its size")
