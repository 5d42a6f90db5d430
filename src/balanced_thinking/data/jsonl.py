r"""JSON Lines, JSON arrays and CSV, in any of these schemas, told apart row by row:

- ours: `question`, `answer` and perhaps `think` (or `reasoning`), `choices`, `image` or `images`;
- TRL's `prompt` + `completion`, each a string or messages, whose content is a string or text and image parts;
- `messages` (`role`, `content`) or `conversations` (`from`, `value`): TRL's, and both files of Vision-R1-cold.

Completions are taken apart by the parser that training uses. `<image>` placeholders are counted and removed. System
turns are left out. Every other key of a row goes to `meta`; a row without `id` is named after its file and line. A
row's `choices` serve scoring: the question is taken as it stands, so it should list them itself.

A CSV file has a line of column names (`image,question,reasoning,answer`, say); in its cells ` | ` stands between
several choices or images, and an empty cell is no value.

Splits: a folder holds `<split>.jsonl`, `.json` or `.csv`; in a file, rows with a `split` key belong to that split, and
rows without one to every split (`assert_no_overlap` finds what that mixes up). `split="all"` takes each row of a file.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import ijson

from balanced_thinking.data.checks import BadRow
from balanced_thinking.data.example import Example
from balanced_thinking.segments import parse

SUFFIXES = (".jsonl", ".json", ".csv")
SEPARATOR = " | "  # between the choices or images of a CSV cell
ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}
PLACEHOLDER = "<image>"
_TURN_LISTS = ("messages", "conversations")
_CLAIMED = {"id", "question", "think", "reasoning", "answer", "choices", "image", "images", "meta", "split"}
_CLAIMED |= {"prompt", "completion", *_TURN_LISTS}
_UNDECODED = re.compile("[\udc80-\udcff]")  # what surrogateescape makes of bytes that are not UTF-8
_CELL_CHARACTERS = 2**24
_REMOTE = re.compile(r"(?:https?|ftp|s3|gs|hf|data):", re.IGNORECASE)


class _RowError(Exception):
    """What makes the row at hand a bad one."""

    def __init__(self, text: str, *problems: str) -> None:
        self.text, self.problems = text, problems


def recognises(path: Path) -> bool:
    """Whether it is a file of ours, or a folder with one for a usual split."""
    if path.is_file():
        return path.suffix in SUFFIXES
    return bool(split_files(path))


def split_files(folder: Path) -> list[Path]:
    """The files that a folder has for the usual splits."""
    named = (folder / f"{split}{suffix}" for split in ("train", "validation", "test") for suffix in SUFFIXES)
    return [file for file in named if file.is_file()]


def load(
    path: str | Path,
    *,
    split: str = "train",
    image_root: str | Path | None = None,
    format: str | Mapping[str, Any] = "auto",
) -> Iterator[Example | BadRow]:
    """One `Example` or `BadRow` for each row of the split.

    Args:
        image_root: where relative image paths start; default: the file's folder.
        format: reasoning format of the completions.

    Raises:
        ValueError: there is no such file, or no row of this split in it.
    """
    file = _file(Path(path).expanduser(), split)
    root = Path(image_root).expanduser() if image_root is not None else file.parent
    other_splits: set[str] = set()
    empty = True
    for row, record in records(file):
        if isinstance(record, dict) and split not in ("all", record.get("split") or split):
            other_splits.add(str(record["split"]))
            continue
        empty = False
        yield record if isinstance(record, BadRow) else example(row, record, file.stem, root, format)
    if empty and other_splits:
        raise ValueError(f"{file} has no row of split {split!r}; its rows say: {', '.join(sorted(other_splits))}")


def _file(path: Path, split: str) -> Path:
    if not path.is_dir():
        if not path.is_file():
            raise ValueError(f"there is no file {path}; expected a .jsonl, .json or .csv file, or a folder of them")
        return path
    for suffix in SUFFIXES:
        if (file := path / f"{split}{suffix}").is_file():
            return file
    held = sorted(file.name for file in path.iterdir() if file.suffix in SUFFIXES)
    raise ValueError(f"{path} has no {split}.jsonl, .json or .csv; it has {', '.join(held) or 'no such file at all'}")


def records(file: Path) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """(line or place in the array, from 1; the object or what is wrong with it). Blank lines are skipped."""
    if file.suffix == ".csv":
        yield from _csv(file)
        return
    with file.open("rb") as stream:
        start = stream.read(4096)
        marked = len(codecs.BOM_UTF8) * start.startswith(codecs.BOM_UTF8)
        stream.seek(marked)
        if start[marked:].lstrip().startswith(b"["):
            yield from _array(file, stream)
            return
        for row, line in enumerate(stream, 1):
            if line.strip():
                yield row, _parsed_line(row, line)


def named_objects(file: Path) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    """(name, object) of a file that is one JSON object of objects. Raises ValueError for any other file."""
    try:
        whole = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(whole, dict):
        raise ValueError(f"{file} holds a {type(whole).__name__}; expected an object with an item under each name")
    for row, (name, value) in enumerate(whole.items(), 1):
        yield name, _record(row, value)


def _csv(file: Path) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """The rows, numbered by their last line in the file."""
    csv.field_size_limit(_CELL_CHARACTERS)
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        reader = csv.DictReader(stream)
        try:
            for cells in reader:
                yield reader.line_num, _csv_record(reader.line_num, cells)
        except csv.Error as error:
            yield reader.line_num, BadRow(reader.line_num, ("invalid_csv",), str(error))


def _csv_record(row: int, cells: dict[Any, Any]) -> dict[str, Any] | BadRow:
    if None in cells:  # what DictReader files extra cells under
        return BadRow(row, ("invalid_csv",), f"cells too many: {', '.join(cells[None])}")
    record: dict[str, Any] = {name: cell for name, cell in cells.items() if cell}
    if bad := next((cell for cell in record.values() if _UNDECODED.search(cell)), None):
        return BadRow(row, ("not_utf8",), bad.encode("utf-8", "surrogateescape").decode("latin-1"))
    for name in ("choices", "images"):
        if name in record:
            record[name] = record[name].split(SEPARATOR)
    return record


def _array(file: Path, stream: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """An array's elements, one at a time: published ones hold hundreds of thousands."""
    row = 0
    try:
        for row, value in enumerate(ijson.items(stream, "item", use_float=True), 1):
            yield row, _record(row, value)
        return
    except (ijson.JSONError, UnicodeDecodeError):
        pass  # the standard library takes more: NaN, and whole numbers of any length
    try:
        rest = json.loads(file.read_bytes())[row:]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} begins like a JSON array but is not one: {error}") from error
    for place, value in enumerate(rest, row + 1):
        yield place, _record(place, value)


def _parsed_line(row: int, line: bytes) -> dict[str, Any] | BadRow:
    try:
        return _record(row, json.loads(line))
    except (ValueError, RecursionError):  # not JSON, not UTF-8, nested beyond reason
        return BadRow(row, ("invalid_json",), line.decode("utf-8", errors="replace"))


def _record(row: int, value: Any) -> dict[str, Any] | BadRow:
    return value if isinstance(value, dict) else BadRow(row, ("not_an_object",), str(value))


def example(
    row: int, record: dict[str, Any], stem: str, root: Path, format: str | Mapping[str, Any]
) -> Example | BadRow:
    """A row in any of the schemas; `stem` names it where it has no id."""
    identity = record.get("id")
    name = f"{stem}-{row:06d}" if identity is None else str(identity)
    try:
        question, entries, think, answer = _parts(record, format)
        meta = record.get("meta")
        return Example(
            id=name,
            question=_without_placeholders(question, len(entries)),
            images=tuple(_image(entry, root) for entry in entries),
            think=think,
            answer=answer,
            choices=tuple(_string(choice, "choices") for choice in _list(record.get("choices"))),
            meta={
                **{key: value for key, value in record.items() if key not in _CLAIMED},
                **(meta if isinstance(meta, dict) else {}),
                "row": row,
            },
        )
    except _RowError as error:
        return BadRow(row, error.problems, error.text, None if identity is None else name)


def _parts(record: dict[str, Any], format: str | Mapping[str, Any]) -> tuple[str, list[Any], str | None, str]:
    """Question, image entries, think and answer of a row in whichever schema it is."""
    entries = _list(_first(record, "images", "image"))
    turns = _turns(record)
    if turns is not None:
        question, completion, inline = _exchange(turns)
        parsed = parse(completion, format)
        if parsed.problems or parsed.answer is None:
            raise _RowError(completion, *(parsed.problems or ("no_answer",)))
        return question, entries or inline, parsed.think, parsed.answer
    if record.get("question") is None:
        raise _RowError(f"keys: {', '.join(record)}", "unknown_schema")
    think = _first(record, "think", "reasoning")
    answer = "" if record.get("answer") is None else _string(record["answer"], "answer").strip()
    question = _string(record["question"], "question")
    return question, entries, None if think is None else _string(think, "think").strip() or None, answer


def _turns(record: dict[str, Any]) -> list[Any] | None:
    """The conversation of a row, None where it has none."""
    turns = _first(record, *_TURN_LISTS)
    if turns is not None:
        return _list(turns)
    if record.get("prompt") is None or "completion" not in record:
        return None
    return [*_side(record["prompt"], "user"), *_side(record["completion"], "assistant")]


def _side(side: Any, role: str) -> list[Any]:
    """Turns of a prompt or a completion, which may be plain text."""
    return [{"role": role, "content": side}] if isinstance(side, str) else _list(side)


def _exchange(turns: list[Any]) -> tuple[str, str, list[Any]]:
    """The user's text, the assistant's text, and the images that the user's parts carry."""
    spoken = [(role, *_content(turn)) for turn in turns if (role := _role(turn)) != "system"]
    roles = [role for role, _, _ in spoken]
    if "assistant" not in roles:
        raise _RowError(" / ".join(text for _, text, _ in spoken), "no_answer")
    if roles.index("assistant") != len(roles) - 1:
        raise _RowError(f"turns: {', '.join(roles)}", "multi_turn")
    question = "\n".join(text for _, text, _ in spoken[:-1])
    return question, spoken[-1][1], [image for _, _, images in spoken[:-1] for image in images]


def _role(turn: Any) -> str:
    role = _first(turn, "role", "from") if isinstance(turn, dict) else None
    if role not in ROLES:
        raise _RowError(f"a turn without a role among {', '.join(ROLES)}: {turn}", "unknown_schema")
    return ROLES[role]


def _content(turn: dict[str, Any]) -> tuple[str, list[Any]]:
    """A turn's text, with a placeholder for each image part, and the images that its parts carry."""
    content = _first(turn, "content", "value")
    if isinstance(content, str):
        return content, []
    parts = _list(content)
    if not all(isinstance(part, dict) and part.get("type") in ("text", "image") for part in parts):
        raise _RowError(f"content that is neither text nor parts of type text and image: {content}", "unknown_schema")
    text = "".join(PLACEHOLDER if part["type"] == "image" else _string(part.get("text"), "text") for part in parts)
    return text, [part["image"] for part in parts if part.get("image") is not None]


def _without_placeholders(question: str, images: int) -> str:
    count = question.count(PLACEHOLDER)
    if count not in (0, images):
        raise _RowError(f"{count} placeholders, {images} images: {question}", "image_count")
    return re.sub(f" ?{PLACEHOLDER}\n?", "", question).strip()


def _image(entry: Any, root: Path) -> Path:
    if isinstance(entry, dict):
        entry = entry.get("path")
    if not isinstance(entry, str) or not entry:
        raise _RowError(f"an image that is not a path: {entry!r}", "broken_image")
    if _REMOTE.match(entry):
        raise _RowError(entry, "remote_image")
    return root / entry.removeprefix("file://")


def _first(record: Mapping[str, Any], *keys: str) -> Any:
    """The value of the first key that says something: files that are joined hold null for the keys they lack."""
    return next((record[key] for key in keys if record.get(key) not in (None, "", [])), None)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _string(value: Any, key: str) -> str:
    """Text, or a number as text."""
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise _RowError(f"{key} is neither text nor a number: {value!r}", "unknown_schema")
