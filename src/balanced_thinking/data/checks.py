"""The checks that every row of every data set passes."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from balanced_thinking.data.bad_rows import BadRow, RowError
from balanced_thinking.data.columns import FormatSpec
from balanced_thinking.data.example import Example, find_unread_texts
from balanced_thinking.data.images import open_image
from balanced_thinking.data.picture_files import find_damage
from balanced_thinking.scoring.answers import find_choice, parse_answer
from balanced_thinking.segments import ReasoningFormat, get_format, parse, render

_OPTION = re.compile(r"^[ \t]*\(?([A-Z])[.):][ \t]", re.MULTILINE)
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_SURROGATE = re.compile("[\ud800-\udfff]")


class Problem(NamedTuple):
    """A key of `PROBLEMS`, and the text that has this problem."""

    name: str
    text: str


def check_examples(
    rows: Iterable[Example | BadRow], *, verify_images: bool = False, written_as: FormatSpec | None = None
) -> Iterator[Example | BadRow]:
    """Pass on the rows of an adapter; an example with a problem becomes a BadRow.

    Image files must exist. `verify_images` also decodes each one, which finds damaged files and other kinds of files.
    `written_as`: the reasoning format that training writes. Then an example has a problem, too, if the format asks for
    reasoning that it lacks, or if its texts would not be read back from that format.
    """
    seen: set[str] = set()
    for position, row in enumerate(rows, 1):
        if isinstance(row, BadRow):
            yield row
            continue
        problems = [*_find_text_problems(row), *_find_image_problems(row, verify_images)]
        if written_as is not None:
            problems += find_written_problems(row, get_format(written_as))
        if row.id in seen:
            problems.append(Problem("duplicate_id", row.id))
        seen.add(row.id)
        yield to_bad_row(row, position, problems) if problems else row


def to_bad_row(example: Example, position: int, problems: Sequence[Problem]) -> BadRow:
    """An example with these problems, of which there is at least one. `position`, from 1, where its row is unknown."""
    names = tuple(dict.fromkeys(problem.name for problem in problems))
    return BadRow(example.meta.get("row", position), names, problems[0].text, example.id)


def find_written_problems(example: Example, format: ReasoningFormat) -> list[Problem]:
    """What is wrong with an example as training would write it in this format."""
    if not example.answer.strip():
        return []  # which is a problem of its own
    if not example.think and format.think_required:
        unread = ", ".join(find_unread_texts(example))
        return [Problem("no_think", f"{example.question} (not read: {unread})" if unread else example.question)]
    if example.meta.get("read_as") == format.name and not format.stages:
        return []  # it was read from this format without a problem
    text = render(example.think, example.answer, format)
    parsed = parse(text, format)
    same = parsed.answer == example.answer.strip()
    if example.think and (format.think_close or format.answer_open):
        same = same and parsed.think == example.think.strip()
    return [] if same and not parsed.problems else [Problem("tag_in_text", text)]


def _find_text_problems(example: Example) -> Iterator[Problem]:
    if not example.question.strip():
        yield Problem("no_question", example.answer)
    if not example.answer.strip():
        yield Problem("no_answer", example.question)
    elif example.choices:
        answer = parse_answer(example.answer, len(example.choices))
        if find_choice(answer, [*map(parse_answer, example.choices)]) is None:
            yield Problem("answer_not_in_choices", f"{example.answer} not in {', '.join(example.choices)}")
    elif letters := _listed_letters(example):
        letter = parse_answer(example.answer).letter
        if letter and letter not in letters:
            text = f"{example.answer} is none of the options that the question lists"
            yield Problem("answer_not_in_choices", text)
    for text in (*_texts_of(example), *_meta_texts(example)):
        if _SURROGATE.search(text):
            yield Problem("lone_surrogate", text)


def _listed_letters(example: Example) -> str:
    """The letters of the options that the question lists line by line, in order from A; "" if it lists none."""
    letters = "".join(_OPTION.findall(example.question)).casefold()
    return letters if len(letters) > 1 and _ALPHABET.startswith(letters) else ""


def _texts_of(example: Example) -> Iterator[str]:
    yield from (example.id, example.question, example.think or "", example.answer, example.system or "")
    yield from (*example.choices, *example.alternatives, *(turn.text for turn in example.history))


def _meta_texts(example: Example) -> Iterator[str]:
    yield "".join(map(str, example.meta))  # their names are written, too
    for value in example.meta.values():
        yield value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _find_image_problems(example: Example, verify: bool) -> Iterator[Problem]:
    for image in example.images:
        encoded = getattr(image, "encoded", None)
        source = image if encoded is None else io.BytesIO(encoded)
        if (problem := find_picture_problem(source, decode=verify)) is not None:
            yield problem


def find_picture_problem(source: Any, *, decode: bool = True) -> Problem | None:
    """What is wrong with the picture in a file, in a stream or in a PIL image; None for a good one.

    Args:
        decode: whether to decode it. Otherwise a file must only exist.
    """
    # os.path: a name that no file can have (too long, a null character) is simply a missing file.
    if isinstance(source, Path) and not os.path.isfile(source):
        return Problem("missing_image", str(source))
    if not decode:
        return None
    if isinstance(source, Path):
        name, damage = str(source), find_damage(source)
    elif isinstance(source, io.BytesIO):
        name, damage = f"a picture of {len(source.getvalue())} bytes", find_damage(source.getvalue())
    else:
        return _find_problem_of_opened(source)
    return None if damage is None else Problem("broken_image", f"{damage}: {name}")


def _find_problem_of_opened(image: Any) -> Problem | None:
    try:
        open_image(image)
    except RowError as error:
        return Problem(error.problem, str(error))
    return None
