r"""JSON Lines, JSON arrays and CSV, in any of these schemas, told apart row by row:

- ours: `question`, `answer` and perhaps `think` (or `reasoning`), `choices`, `image` or `images`;
- TRL's `prompt` (or `question`) + `completion`, each a string or messages, whose content is a string or parts;
- `messages` (`role`, `content`) or `conversations` (`from`, `value`): TRL's, and both files of Vision-R1-cold.

Completions are taken apart by the parser that training uses, and `meta["read_as"]` names their format. `<image>`
placeholders are counted and removed. System turns are left out. Every other key of a row goes to `meta`; a row without
`id` is named after its file and line. A row's `choices` serve scoring: the question is taken as it stands, so it should
list them itself.

A CSV file has a line of column names (`image,question,reasoning,answer`, say; see `read_records`).

Splits: a folder holds `<split>.jsonl`, `.json` or `.csv`; in a file, rows with a `split` key belong to that split, and
rows without one to every split (`assert_no_overlap` finds what that mixes up). `split="all"` takes each row of a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from balanced_thinking.data.bad_rows import BadRow
from balanced_thinking.data.example import Example
from balanced_thinking.data.prose import split_prose
from balanced_thinking.data.records import CLAIMED, TURN_LISTS, check_file_start, read_records
from balanced_thinking.segments import parse

SUFFIXES = (".jsonl", ".json", ".csv")
ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}
PLACEHOLDER = "<image>"
PROSE = "prose"
_PLACEHOLDERS = re.compile(rf"[ \n]?(?:{PLACEHOLDER}[ \n]?)+")
_PICTURE_FILE = re.compile(r".+\.(?:png|jpe?g|webp|bmp|gif|tiff?)", re.IGNORECASE)
_REMOTE = re.compile(r"(?:https?|ftp|s3|gs|hf|data):", re.IGNORECASE)


class _RowError(Exception):
    """What makes the row at hand a bad one."""

    def __init__(self, text: str, *problems: str) -> None:
        self.text, self.problems = text, problems


def recognises(path: Path) -> bool:
    """Whether it is a file of ours, or a folder with one for a usual split."""
    if path.is_file():
        return path.suffix.lower() in SUFFIXES
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
        format: reasoning format of the completions; `prose`: those without tags end in "the answer is ..." (`prose`).

    Raises:
        ValueError: there is no such file, or no row of this split in it.
    """
    file = _file(Path(path).expanduser(), split)
    check_file_start(file)
    root = Path(image_root).expanduser() if image_root is not None else file.parent
    other_splits: set[str] = set()
    empty = True
    for row, record in read_records(file):
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


def example(
    row: int, record: dict[str, Any], stem: str, root: Path, format: str | Mapping[str, Any] = "auto"
) -> Example | BadRow:
    """A row in any of the schemas; `stem` names it where it has no id."""
    identity = record.get("id")
    name = f"{stem}-{row:06d}" if identity is None else str(identity)
    try:
        question, entries, think, answer, written = _parts(record, format)
        others = {key: value for key, value in record.items() if key not in CLAIMED}
        meta = record.get("meta")
        if not entries:
            _refuse_pictures({**others, "meta": meta})
        return Example(
            id=name,
            question=_without_placeholders(question, len(entries)),
            images=tuple(_image(entry, root) for entry in entries),
            think=think,
            answer=answer,
            choices=tuple(_string(choice, "choices") for choice in _list(record.get("choices"))),
            meta={**others, **(meta if isinstance(meta, dict) else {}), **written, "row": row},
        )
    except _RowError as error:
        return BadRow(row, error.problems, error.text, None if identity is None else name)


def _refuse_pictures(value: Any, name: str = "") -> None:
    """A picture under a name that is not read must not become a question about nothing."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _refuse_pictures(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for inner in value:
            _refuse_pictures(inner, name)
    elif isinstance(value, str) and _PICTURE_FILE.fullmatch(value.partition("?")[0]):
        raise _RowError(f"{name}: {value}", "unread_image")


def _parts(
    record: dict[str, Any], format: str | Mapping[str, Any]
) -> tuple[str, list[Any], str | None, str, dict[str, str]]:
    """Question, image entries, think and answer of a row in whichever schema it is, and how a completion was read."""
    entries = _list(_first(record, "images", "image"))
    turns = _turns(record)
    if turns is not None:
        question, completion, inline = _exchange(turns)
        return question, entries or inline, *_read(completion, format)
    if record.get("question") is None:
        raise _RowError(f"keys: {', '.join(record)}", "unknown_schema")
    think = _first(record, "think", "reasoning")
    answer = "" if record.get("answer") is None else _string(record["answer"], "answer").strip()
    question = _string(record["question"], "question")
    return question, entries, None if think is None else _string(think, "think").strip() or None, answer, {}


def _read(completion: str, format: str | Mapping[str, Any]) -> tuple[str | None, str, dict[str, str]]:
    """Think and answer of a completion, and how it was read."""
    parsed = parse(completion, "auto" if format == PROSE else format)
    if not parsed.problems and parsed.answer is not None:
        return parsed.think, parsed.answer, {"read_as": parsed.format}
    if format == PROSE and (found := split_prose(completion)) is not None:
        return found[0] or None, found[1], {"read_as": PROSE}
    raise _RowError(completion, *(parsed.problems or ("no_answer",)))


def _turns(record: dict[str, Any]) -> list[Any] | None:
    """The conversation of a row, None where it has none."""
    turns = _first(record, *TURN_LISTS)
    if turns is not None:
        return _list(turns)
    asked = _first(record, "prompt") if "answer" in record else _first(record, "prompt", "question")
    if asked is None or "completion" not in record:
        return None
    return [*_side(asked, "user"), *_side(record["completion"], "assistant")]


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
    return _PLACEHOLDERS.sub(_gap, question).strip()


def _gap(removed: re.Match[str]) -> str:
    """What is left between the texts around a placeholder: the widest white space that stood beside it, and a new line
    where two words would become one."""
    before, after = removed.string[: removed.start()][-1:], removed.string[removed.end() :][:1]
    apart = "\n" if before.isalnum() and after.isalnum() else ""
    return next((space for space in ("\n", " ") if space in removed[0]), apart)


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
