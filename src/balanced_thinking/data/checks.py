"""What is wrong with a row, by name; the checks that every data set passes; the table that shows bad rows."""

from __future__ import annotations

import io
import json
import os
import re
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from balanced_thinking import segments
from balanced_thinking.data.example import Example
from balanced_thinking.scoring.answers import find_choice, read_answer

PROBLEMS: dict[str, str] = {
    "invalid_json": "the row is not valid JSON in UTF-8",
    "not_utf8": "the row is not UTF-8: save the file in that encoding",
    "invalid_csv": "more cells than columns, or a quote that is not closed: put texts with commas in double quotes",
    "not_an_object": "the row is JSON, but not an object in braces",
    "unknown_schema": "expected question + answer, prompt + completion, messages or conversations (see its adapter)",
    "multi_turn": "expected one exchange: the user's turns, then one turn of the assistant, then nothing",
    "no_question": "the question is empty",
    "image_count": "the question's <image> placeholders and the row's images differ in number",
    "remote_image": "images are read from local files only: download it and give its path",
    "missing_image": "no such file; relative paths start at the option image_root (default: the folder of the data)",
    "broken_image": "the image is not a path to a picture that can be opened",
    "unread_image": "the row has no image, but a picture's path under another name: call that column image or images",
    "duplicate_id": "an earlier row has the same id",
    "answer_not_in_choices": "the answer is neither one of the choices nor the letter of one",
    "lone_surrogate": "half of a surrogate pair: the text cannot be written as UTF-8",
    **segments.PROBLEMS,
}
# What Pillow raises for files that are missing, foreign, damaged or too large; PNG damage is a SyntaxError to it.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
_SHOWN_ROWS = 20
_SHOWN_CHARACTERS = 60
_OPTION = re.compile(r"^[ \t]*\(?([A-Z])[.):][ \t]", re.MULTILINE)
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_SURROGATE = re.compile("[\ud800-\udfff]")


class RowError(ValueError):
    """A row that cannot be trained on; the message names it and says what mends it."""


@dataclass(frozen=True)
class BadRow:
    """A row that cannot become an Example.

    row: its line, or its place in a JSON array, from 1. problems: keys of `PROBLEMS`. text: what offends, in full.
    """

    row: int
    problems: tuple[str, ...]
    text: str
    id: str | None = None


class BadRowsError(ValueError):
    """Data with bad rows was asked for with `on_bad_row="error"`. `rows` carries all of them."""

    def __init__(self, data: str, rows: Sequence[BadRow]) -> None:
        self.data, self.rows = data, tuple(rows)
        super().__init__(self.table())

    def table(self) -> str:
        """The rows as text, at most 20 of them."""
        return f"{self.data}: {bad_rows_table(self.rows)}"


def bad_rows_table(rows: Sequence[BadRow]) -> str:
    """Row number, problem and offending text of the first 20 bad rows, then how often each problem occurs, in words."""
    cells = [("row", "problem", "text")]
    cells += [(str(bad.row), ", ".join(bad.problems), _shorten_text(bad)) for bad in rows[:_SHOWN_ROWS]]
    number, problem = (max(len(row[i]) for row in cells) for i in (0, 1))
    lines = [f"{len(rows)} bad row{'s' * (len(rows) != 1)}", ""]
    lines += [f"{row:>{number}}  {name:<{problem}}  {text}".rstrip() for row, name, text in cells]
    if len(rows) > _SHOWN_ROWS:
        lines.append(f"... and {len(rows) - _SHOWN_ROWS} more")
    counts = Counter(name for bad in rows for name in bad.problems)
    return "\n".join([*lines, "", *(f"{name} ({n}): {PROBLEMS[name]}" for name, n in counts.most_common())])


def _shorten_text(bad: BadRow) -> str:
    """One printable line: control characters in the data must not reach the terminal."""
    text = f"{bad.id}: {bad.text}" if bad.id else bad.text
    line = "".join(c if c.isprintable() else " " for c in text[: 10 * _SHOWN_CHARACTERS])
    line = " ".join(line.split())
    # Both ends: a path's last part says more than its first.
    half = _SHOWN_CHARACTERS // 2
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[: half - 1]}…{line[-half:]}"


def check_examples(
    rows: Iterable[Example | BadRow], *, verify_images: bool = False, reasoned: bool = False
) -> Iterator[Example | BadRow]:
    """Every row of an adapter, with the examples that have a problem as bad rows.

    `reasoned`: an example without reasoning is one of them.
    Files of images must exist; `verify_images` also opens each one, which finds foreign and damaged files and decodes
    only where nothing else tells a whole file from a truncated one.
    """
    seen: set[str] = set()
    for position, row in enumerate(rows, 1):
        if isinstance(row, BadRow):
            yield row
            continue
        found = [*_text_problems(row), *_image_problems(row, verify_images)]
        if reasoned and not row.think:
            found.append(("no_think", row.question))
        if row.id in seen:
            found.append(("duplicate_id", row.id))
        seen.add(row.id)
        if found:
            place = row.meta.get("row", position)
            yield BadRow(place, tuple(dict.fromkeys(name for name, _ in found)), found[0][1], row.id)
        else:
            yield row


def _text_problems(example: Example) -> Iterator[tuple[str, str]]:
    if not example.question.strip():
        yield "no_question", example.answer
    if not example.answer.strip():
        yield "no_answer", example.question
    elif example.choices and find_choice(read_answer(example.answer), [*map(read_answer, example.choices)]) is None:
        yield "answer_not_in_choices", f"{example.answer} not in {', '.join(example.choices)}"
    elif (
        not example.choices
        and (letter := read_answer(example.answer).letter)
        and letter not in _listed_letters(example)
    ):
        yield "answer_not_in_choices", f"{example.answer} is none of the options that the question lists"
    texts = (example.id, example.question, example.think or "", example.answer, *example.choices)
    for text in (*texts, *_meta_texts(example)):
        if _SURROGATE.search(text):
            yield "lone_surrogate", text


def _listed_letters(example: Example) -> str:
    """The letters of the options that the question lists line by line; all of them where it lists none."""
    found = "".join(_OPTION.findall(example.question)).casefold()
    return found if len(found) > 1 and _ALPHABET.startswith(found) else _ALPHABET


def _meta_texts(example: Example) -> Iterator[str]:
    for value in example.meta.values():
        yield value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _image_problems(example: Example, verify: bool) -> Iterator[tuple[str, str]]:
    for image in example.images:
        if not isinstance(image, Path):
            encoded = getattr(image, "encoded", None)
            if verify and encoded is not None and not _can_open(io.BytesIO(encoded)):
                yield "broken_image", f"{len(encoded)} bytes of {image.format}"
            continue
        # os.path: a name that no file can have (too long, a null character) is just a missing file.
        if not os.path.isfile(image):
            yield "missing_image", str(image)
        elif verify and not _can_open(image):
            yield "broken_image", str(image)


def _can_open(source: Path | io.BytesIO) -> bool:
    try:
        with Image.open(source) as image:
            if image.format == "PNG":
                image.verify()  # the checksums of its parts
            elif not (image.format == "JPEG" and _last_bytes(source) == b"\xff\xd9"):  # the mark of a JPEG's end
                image.draft("L", (1, 1))  # a JPEG at an eighth of its size
                image.load()
    except UNREADABLE:
        return False
    return True


def _last_bytes(source: Path | io.BytesIO) -> bytes:
    with source.open("rb") if isinstance(source, Path) else io.BytesIO(source.getvalue()) as file:
        file.seek(-2, os.SEEK_END)
        return file.read()


def assert_no_overlap(**splits: Iterable[Example]) -> None:
    """Raise ValueError where two splits share an id, or a question about the same image files.

    assert_no_overlap(train=train.examples, test=test.examples)
    """
    owner: dict[int, str] = {}
    for name, examples in splits.items():
        for _ in without_overlap(examples, name, owner):
            pass


def without_overlap(examples: Iterable[Example], name: str, owner: dict[int, str]) -> Iterator[Example]:
    """The examples of a split as they come, checked as `assert_no_overlap` does against those in `owner`, which learns
    them."""
    for example in examples:
        for key in _identity_keys(example):
            other = owner.setdefault(hash(key), name)
            if other != name:
                raise ValueError(
                    f"splits {other!r} and {name!r} share {example.id!r}: {example.question[:80]!r}; give each "
                    "a file of its own in one folder, or each row a `split`, or data_options and validation_options "
                    "hash_split: true"
                )
        yield example


def _identity_keys(example: Example) -> Iterator[object]:
    yield example.id
    if all(isinstance(image, Path) for image in example.images):
        yield example.question, example.images
