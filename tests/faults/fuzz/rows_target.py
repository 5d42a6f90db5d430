"""Files of rows through the readers, the checks of every row, the format that training writes, and `convert`.

An input is four bytes, the kind of file and the options, then the file's content.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import shutil
import tempfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from balanced_thinking.config.errors import UsageError
from balanced_thinking.data.bad_rows import PROBLEMS, DataError, format_bad_rows
from balanced_thinking.data.convert import write_jsonl
from balanced_thinking.data.example import Example
from balanced_thinking.data.load import load_data, stream_data
from balanced_thinking.data.rows import prompt_messages
from tests.faults.fuzz.target import Target
from tests.faults.fuzz.values import (
    FRAGMENTS,
    mutate_bytes,
    nasty_number,
    nasty_text,
    nasty_value,
    nest_deeply,
    write_json,
)

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".ndjson", ".jsonl.gz", ".json.gz", ".JSONL")
_FORMATS: tuple[Any, ...] = ("auto", "think-answer", "prose", "boxed", {"think_close": "</r>", "answer_open": "<a>"})
_OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"turns": "all"},
    {"system": "drop", "list_choices": True},
    {"columns": {"question": "prompt", "answer": "label"}},
    {"columns": {"question": "q", "answer": "a", "choices": "opts", "image": "img"}, "turns": "all"},
    {"columns": {"question": "image", "think": "question", "answer": "answer"}},
    {"image_root": "pictures"},
    {"hash_split": True},
)
_WRITTEN = (None, "think-answer", "deepseek-r1", "direct")
_SPLITS = ("train", "all", "test")
_KEYS = (
    "id",
    "question",
    "answer",
    "think",
    "reasoning",
    "choices",
    "options",
    "image",
    "images",
    "prompt",
    "completion",
)
_KEYS += (
    "messages",
    "conversations",
    "system",
    "history",
    "answers",
    "alternatives",
    "split",
    "meta",
    "video",
    "A",
    "B",
)
_KEYS += ("image_1", "image_2", "label", "q", "a", "opts", "img", "reasoning_content", "solution", "text", "role", "")
_PICTURES: tuple[Any, ...] = (
    "dot.png",
    "dot.jpg",
    "missing.png",
    "broken.png",
    "../dot.png",
    "/etc/hostname",
    "http://x/y.png",
)
_PICTURES += (
    "\x00",
    "x" * 300,
    {"path": "dot.png"},
    {"bytes": "iVBORw0K"},
    "data:image/png;base64,iVBORw0KGgo=",
    "",
    "loop",
)
_COMPLETION = "<think>Two are red.</think><answer>B</answer>"


@cache
def workplace() -> Path:
    """A folder with three pictures, in memory where the machine has such a place."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="fuzz-rows-", dir=memory if memory.is_dir() else None))
    Image.new("RGB", (3, 2), "red").save(folder / "dot.png")
    Image.new("RGB", (9, 9), "red").save(folder / "dot.jpg")
    (folder / "broken.png").write_bytes((folder / "dot.png").read_bytes()[:40])
    (folder / "pictures").mkdir()
    (folder / "loop").symlink_to(folder / "loop")
    return folder


def close() -> None:
    shutil.rmtree(workplace())
    workplace.cache_clear()


def generate(rng: random.Random) -> bytes:
    kind = rng.randrange(len(SUFFIXES))
    head = bytes([kind, rng.randrange(256), rng.randrange(256), rng.randrange(256)])
    rows = [_make_row(rng) for _ in range(rng.choice((1, 1, 2, 4)))]
    if kind in (2, 3):
        return head + _write_table(rng, rows, kind)
    body = b"\n".join(_write_row(rng, row) for row in rows)
    if rng.random() < 0.3:
        body = b"[" + body.replace(b"\n", b",") + b"]"
    if rng.random() < 0.02:
        body = nest_deeply(rng, body)
    return head + (gzip.compress(body, 1, mtime=0) if SUFFIXES[kind].endswith(".gz") else body)


def _make_row(rng: random.Random) -> Any:
    """A row in one of the schemas, with some of its values replaced by others, and keys added."""
    if rng.random() < 0.03:
        return nasty_value(rng)
    row = dict(rng.choice(_SCHEMAS)(rng))
    for key in rng.sample(sorted(row), rng.randrange(min(3, len(row)) + 1)) if rng.random() < 0.6 else ():
        row[key] = nasty_value(rng)
    for key in rng.sample(_KEYS, rng.choice((0, 0, 1, 3))):
        row[key] = rng.choice((nasty_value(rng), nasty_text(rng), nasty_number(rng), rng.choice(_PICTURES)))
    return row


def _own_schema(rng: random.Random) -> dict[str, Any]:
    row: dict[str, Any] = {
        "question": f"How many? {nasty_text(rng, 3)}",
        "answer": rng.choice(("B", "2", nasty_text(rng, 3))),
    }
    if rng.random() < 0.6:
        row["think"] = f"Two. {nasty_text(rng, 3)}"
    if rng.random() < 0.3:
        row["choices"] = rng.choice(
            (["1", "2"], {"A": "1", "B": "2"}, "['1', '2']", "A. 1\nB. 2", [nasty_text(rng, 2), "B"])
        )
    if rng.random() < 0.4:
        row[rng.choice(("image", "images"))] = rng.choice(
            (rng.choice(_PICTURES), ["dot.png", "dot.jpg"], [{"path": "dot.jpg"}])
        )
    return row


def _completion_schema(rng: random.Random) -> dict[str, Any]:
    completion = rng.choice((_COMPLETION, nasty_text(rng), _COMPLETION + nasty_text(rng, 2)))
    prompt = rng.choice(("What?", "<image>What?", [{"role": "user", "content": _content(rng)}]))
    return {"prompt": prompt, "completion": rng.choice((completion, [{"role": "assistant", "content": completion}]))}


def _turns_schema(rng: random.Random) -> dict[str, Any]:
    user, reply = rng.choice((("role", "content"), ("from", "value")))
    roles = ["user", "assistant"] * rng.choice((1, 1, 2))
    roles = rng.choice((roles, ["system", *roles], ["user", *roles], roles[1:]))
    turns = [{user: role, reply: _COMPLETION if role == "assistant" else _content(rng)} for role in roles]
    if rng.random() < 0.2:
        turns[-1]["reasoning_content"] = nasty_text(rng)
    pictures = (
        {"images": rng.choice((["dot.png"], ["dot.png"] * 2, rng.choice(_PICTURES)))} if rng.random() < 0.5 else {}
    )
    return {rng.choice(("messages", "conversations")): turns, **pictures}


def _content(rng: random.Random) -> Any:
    parts = [{"type": "text", "text": nasty_text(rng, 3)}, {"type": "image", "image": rng.choice(_PICTURES)}]
    return rng.choice(
        ("What?", "<image>What?", f"<image>{nasty_text(rng)}", parts, [parts[0], nasty_value(rng)], nasty_text(rng))
    )


_SCHEMAS: tuple[Callable[[random.Random], dict[str, Any]], ...] = (_own_schema, _completion_schema, _turns_schema)


def _write_row(rng: random.Random, row: Any) -> bytes:
    text = write_json(rng, row)
    if rng.random() < 0.03:  # a key twice, a number of 5,000 digits, and other things that Python does not write
        text = text.replace(b"{", rng.choice((b'{"id": 1, "id": 2, ', b'{"n": ' + b"7" * 5000 + b", ", b"{ ")), 1)
    return text


def _write_table(rng: random.Random, rows: list[Any], kind: int) -> bytes:
    records = [
        {k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()} for row in rows if isinstance(row, dict)
    ]
    names = list(dict.fromkeys(name for record in records for name in record)) or ["question", "answer"]
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=",\t"[kind - 2], escapechar="\\" if rng.random() < 0.1 else None)
    try:
        writer.writerow(names)
        writer.writerows([record.get(name, "") for name in names] for record in records)
    except csv.Error:
        pass
    return stream.getvalue().encode("utf-8", "surrogatepass")


def run(data: bytes) -> None:
    kind, first, second, third = (*data[:4], 0, 0, 0, 0)[:4]
    folder, options = workplace(), dict(_OPTIONS[first % len(_OPTIONS)])
    if "image_root" in options:
        options["image_root"] = str(folder / options["image_root"])
    file = folder / f"rows{SUFFIXES[kind % len(SUFFIXES)]}"
    for old in folder.glob("rows*"):
        old.unlink()
    file.write_bytes(data[4:])
    names: Any = str(file)
    if second % 8 == 7:
        names = [str(file), {"data": str(file), "weight": 2, "data_options": options}]
    how = {
        "format": _FORMATS[second // 8 % len(_FORMATS)],
        "split": _SPLITS[third % 3],
        "verify_images": third % 4 == 0,
    }
    try:
        stream = stream_data(names, written_as=_WRITTEN[third // 4 % 4], options=options, on_bad_row="drop", **how)
        examples, rows = list(stream), stream.bad_rows
    except DataError as error:
        if file.name in str(error) or isinstance(error, UsageError):
            return
        raise AssertionError(f"the message does not name the file: {error}") from error
    for bad in rows:
        assert bad.problems
        assert bad.row > 0
        assert set(bad.problems) <= set(PROBLEMS), bad.problems
    if rows:
        assert format_bad_rows(rows)
    for example in examples:
        prompt_messages(example)
    if examples and third % 2 and how["format"] == "auto":  # which is how the result is read
        _check_converted(examples, folder, ("think-answer", None, "boxed")[second % 3])


def _check_converted(examples: list[Example], folder: Path, format: str | None) -> None:
    """What `convert` writes reads back to the same examples."""
    target = folder / "rows-converted.jsonl"
    write_jsonl(examples, target, format=format)
    again = load_data(str(target), split="all", on_bad_row="drop", options={"turns": "last"})
    assert not again.bad_rows, again.bad_rows[:1]
    for before, after in zip(examples, again.examples, strict=True):
        assert _plain_values(before, folder) == _plain_values(after, folder)


def _plain_values(example: Example, folder: Path) -> dict[str, Any]:
    values = dict(vars(example))
    values["images"] = [(folder / image).resolve() if isinstance(image, Path) else image for image in example.images]
    meta = {name: value for name, value in example.meta.items() if name not in ("row", "read_as")}
    values["meta"] = json.loads(json.dumps(meta, default=str, sort_keys=True)) if meta else {}
    return {name: repr(value) for name, value in values.items()}


def mutate(rng: random.Random, data: bytes) -> bytes:
    head = bytearray(data[:4])
    if rng.random() < 0.3 and head:
        head[rng.randrange(len(head))] = rng.randrange(256)
    body, packed = data[4:], data[4:6] == b"\x1f\x8b"
    if packed and rng.random() < 0.8:
        try:
            return bytes(head) + gzip.compress(mutate_bytes(rng, gzip.decompress(body), FRAGMENTS), 1, mtime=0)
        except (OSError, EOFError, zlib.error):
            pass
    return bytes(head) + mutate_bytes(rng, body, FRAGMENTS)


TARGET = Target("rows", generate, run, mutate, close)
