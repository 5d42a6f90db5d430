r"""Text questions with a written rationale: FLAN's chain-of-thought tables, and the authors' own files.

FLAN's tables (google-research/FLAN, `flan/v2/cot_data/*.tsv`) have no header and three columns: question, answer,
rationale. Options follow the question as `\nOptions:\n- ...`, where `\n` is two characters.

A folder and a name on the hub have splits as published. A single file has none. It gets `train` (79 %), `validation`
(5 %), `test` (16 %) and `all`, by a hash of the question, so that no question is in two of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from balanced_thinking.data.bad_rows import BadRow
from balanced_thinking.data.example import Example, format_question
from balanced_thinking.data.options import check_known_name
from balanced_thinking.data.records import bounded_lines, open_text_file
from balanced_thinking.data.sources import Row, open_source
from balanced_thinking.data.splits import hash_hundredth
from balanced_thinking.system.files import expand_home

# Hundredths of the hash space: 1,000 test items of the larger sets. A change moves questions between splits.
SPLITS = {"train": range(21, 100), "validation": range(16, 21), "test": range(16), "all": range(100)}
SALT = b"text-questions/"
ANSWERS = ("text", "letter")
_OPTIONS_MARK = r"\nOptions:\n- "
_LETTERED = re.compile(r"\(([A-Z])\) ?(.*)")


class TextQuestion(NamedTuple):
    """A question, its options (none if it is open), the answer (an option's text), its rationale and its id if any."""

    question: str
    options: tuple[str, ...]
    answer: str
    think: str
    id: str = ""


ParseRecord = Callable[[dict[str, Any]], TextQuestion]


def read_text_questions(
    path: str | Path,
    split: str,
    parse: ParseRecord,
    *,
    owner: str,
    answer_as: str = "text",
    subset: str | None = None,
) -> Iterator[Example | BadRow]:
    """Yield one `Example` or `BadRow` per row of the split.

    Args:
        parse: a question of a row as its authors publish it. KeyError, TypeError, ValueError or IndexError: a bad row.
        owner: the name of the data set in messages.
        answer_as: `text` or `letter`: how the answer names an option.
        subset: a configuration on the hub.

    Raises DataError for an unknown split and for a path that cannot be read.
    """
    check_known_name(owner, "answer_as", answer_as, ANSWERS)
    place = expand_home(path)
    undivided = place.is_file()
    if undivided:
        check_known_name(owner, "split", split, SPLITS)
    table = undivided and place.suffix == ".tsv"
    rows = _read_table(place) if table else open_source(path, split, subset).rows
    for row, record, stem, _ in rows:
        identity = f"{stem}-{row:05d}"
        if isinstance(record, BadRow):
            yield record
            continue
        try:
            found = _with_texts(_parse_table_row(record) if table else parse(record))
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            yield BadRow(row, ("unknown_schema",), f"{type(error).__name__} {error} in {record}", identity)
            continue
        if not undivided or hash_hundredth(_normalize(found.question), SALT) in SPLITS[split]:
            yield _build_example(found, row, identity, answer_as)


def _read_table(file: Path) -> Iterator[Row]:
    with open_text_file(file) as stream:
        for row, line in enumerate(bounded_lines(file, stream), 1):
            cells = line.decode("utf-8", "replace").rstrip("\r\n").split("\t")
            yield Row(row, dict(enumerate(cells)), file.stem, file.parent)  # type: ignore[arg-type]


def _parse_table_row(cells: dict[Any, str]) -> TextQuestion:
    text, answer, think = cells.values()
    question, *listed = text.split(_OPTIONS_MARK)
    options = listed[0].split(r"\n- ") if listed else []
    lettered = [match for option in options if (match := _LETTERED.fullmatch(option))]
    if options and len(lettered) == len(options):
        answer = {match[1]: match[2] for match in lettered}[answer.strip("()")]
        options = [match[2] for match in lettered]
    return TextQuestion(question, tuple(options), answer, think)


def _with_texts(found: TextQuestion) -> TextQuestion:
    """The question, whose reasoning may be null. Raises ValueError for a question or answer that is no text."""
    for name in ("question", "answer"):
        if not isinstance(value := getattr(found, name), str):
            raise ValueError(f"the {name} is {value!r}; expected text")
    if not isinstance(found.think, str | None):
        raise ValueError(f"the reasoning is {found.think!r}; expected text")
    return found._replace(think=found.think or "")


def _normalize(question: str) -> bytes:
    return " ".join(question.casefold().split()).encode("utf-8", "surrogatepass")


def _build_example(found: TextQuestion, row: int, identity: str, answer_as: str) -> Example | BadRow:
    if found.options and found.answer not in found.options:
        text = f"the answer {found.answer!r} is none of {list(found.options)}"
        return BadRow(row, ("answer_not_in_choices",), text, found.id or identity)
    letter = found.options and answer_as == "letter"
    return Example(
        id=found.id or identity,
        question=format_question(found.question.strip(), found.options),
        images=(),
        think=found.think.strip() or None,
        answer=chr(ord("A") + found.options.index(found.answer)) if letter else found.answer,
        choices=found.options,
        meta={"row": row},
    )
