"""The option `columns`: which column of the data is which of ours, and what to say where no column is known.

--data_options.columns '{question: prompt_text, answer: meta.gold, images: pics}'
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from balanced_thinking.config.names import did_you_mean
from balanced_thinking.data.bad_rows import BadRow, UnknownDataError
from balanced_thinking.data.keys import CLAIMED, LIST_KEYS, OPTIONAL
from balanced_thinking.data.known_columns import (
    ANSWERS,
    QUESTIONS,
    adapt_record,
    find_lost_picture,
    has_schema,
    keep_plain_values,
)
from balanced_thinking.data.options import check_known_name
from balanced_thinking.data.records import split_cell
from balanced_thinking.data.sources import Row, Source
from balanced_thinking.system.text import list_some, shorten_text

TARGETS = tuple(sorted(CLAIMED | OPTIONAL))
# Not `id`, `split` and `meta`, which often mean something else in capitals.
_ANY_CASE = {*CLAIMED, *OPTIONAL, *QUESTIONS, *ANSWERS, "input"} - {"id", "split", "meta"}
_PEEKED = 100  # rows in which a column must occur once
_SHOWN, _MOST_SHOWN = 30, 80  # columns that a message lists, and characters of each
# Parts of names that a column for each of ours often has, for a suggestion.
_LIKELY = {
    "question": ("question", "problem", "prompt", "query", "instruction", "input", "text"),
    "answer": ("answer", "label", "gold", "target", "solution", "response", "output", "truth", "result"),
    "think": ("think", "reason", "rationale", "cot", "explanation", "steps"),
    "images": ("image", "img", "picture", "pic", "photo", "figure"),
}


def check_columns(columns: Mapping[str, Any] | None) -> None:
    """Raise UnknownDataError for a mapping whose keys are not ours, or whose values are not names."""
    for target, source in (columns or {}).items():
        check_known_name("columns", "target", str(target), TARGETS)
        if not isinstance(source, str) or not source:
            raise UnknownDataError(
                f"columns has {target}: {source!r}; expected the name of a column of the data, as {{{target}: NAME}}"
            )


def read_columns(source: Source, columns: Mapping[str, Any] | None) -> Iterator[Row]:
    """The rows of a source under our names. `columns`: our name -> the column's, with dots into objects.

    Raises UnknownDataError if a column of the mapping is in none of the first rows, or if no schema fits any of them.
    """
    mapping = dict(columns or {})
    first = list(islice(source.rows, _PEEKED))
    found = [row.record for row in first if isinstance(row.record, dict)]
    _check_sources(source, mapping, found)
    mapping = _match_case(source, found) | mapping
    adapted = [adapt_record(_rename(record, mapping)) for record in found]
    if found and not any(has_schema(record) for record in adapted):
        raise UnknownDataError(_describe_unknown(source, found))
    for row in chain(first, source.rows):
        yield row if isinstance(row.record, BadRow) else row._replace(record=_adapt_row(row, mapping))


def _adapt_row(row: Row, mapping: Mapping[str, str]) -> dict[str, Any] | BadRow:
    assert isinstance(row.record, dict)
    record = adapt_record(_rename(row.record, mapping))
    if (lost := find_lost_picture(record)) is not None:
        identity = record.get("id")
        return BadRow(row.row, ("unread_image",), f"{lost}: a picture", None if identity is None else str(identity))
    return keep_plain_values(record)


def _rename(record: dict[str, Any], mapping: Mapping[str, str]) -> dict[str, Any]:
    """The record with the mapping's columns under our names. A column in an object stays there, too."""
    if not mapping:
        return record
    taken = {target: _find_value(record, source) for target, source in mapping.items()}
    rest = {key: value for key, value in record.items() if key not in mapping.values() and key not in mapping}
    for target in LIST_KEYS:
        if isinstance(value := taken.get(target), str):
            taken[target] = split_cell(value)
    return rest | {target: value for target, value in taken.items() if value is not None}


def _match_case(source: Source, records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A mapping for columns that are called like one that is read except for capital letters and outer spaces."""
    names = dict.fromkeys([*source.columns, *(str(key) for record in records for key in record)])
    meant = {plain: name for name in names if (plain := name.strip().lower()) in _ANY_CASE and plain not in names}
    return {plain: name for plain, name in meant.items() if plain != name}


def _find_value(record: Any, name: str) -> Any:
    """The value under a name, or under `outer.inner`, where the outer value is an object or a list of one."""
    if isinstance(record, Mapping) and name in record:
        return record[name]
    if isinstance(record, list) and len(record) == 1:
        return _find_value(record[0], name)
    outer, dot, inner = name.partition(".")
    return _find_value(record[outer], inner) if dot and isinstance(record, Mapping) and outer in record else None


def _check_sources(source: Source, mapping: Mapping[str, str], records: Sequence[Mapping[str, Any]]) -> None:
    known = _list_columns(source, records)
    for target, name in mapping.items():
        if records and name not in known:
            raise UnknownDataError(
                f"columns has {target}: {name}, but {source.where} has no column {name!r}{did_you_mean(name, known)}; "
                f"it has {_join_names(known)}"
            )


def _list_columns(source: Source, records: Iterable[Mapping[str, Any]]) -> list[str]:
    """The columns of the first rows, and the names inside of those that hold objects."""
    names: dict[str, None] = dict.fromkeys(source.columns)
    for record in records:
        for key, value in record.items():
            names[str(key)] = None
            names.update(dict.fromkeys(f"{key}.{inner}" for inner in _inner_names(value)))
    return list(names)


def _inner_names(value: Any) -> Iterator[str]:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, Mapping) and not {*value} <= {"bytes", "path"}:  # a picture
        for key, inner in value.items():
            yield str(key)
            yield from (f"{key}.{name}" for name in _inner_names(inner))


def _describe_unknown(source: Source, records: Sequence[Mapping[str, Any]]) -> str:
    """The columns that were found, and the mapping to write, with a guess where a name resembles one of ours."""
    known = _list_columns(source, records)
    if len(records) == 1 and all(_are_rows(value) for value in records[0].values()):
        return (
            f"{source.where} has its rows inside of one object, under {_join_names([*map(str, records[0])])}; expected "
            "one row per line, or an array of all rows in [ ]"
        )
    top = list(dict.fromkeys([*source.columns, *(str(key) for record in records for key in record)]))
    guess = {target: _guess_column(target, [*top, *known]) for target in ("question", "answer", "think", "images")}
    pairs = [
        f"{target}: {name or 'NAME'}" for target, name in guess.items() if name or target in ("question", "answer")
    ]
    if talk := next((name for record in records for name, value in record.items() if _are_turns(value)), None):
        pairs = [f"messages: {talk}"]
    return (
        f"no column of {source.where} is known as a question or a conversation; it has {_join_names(known)}. Expected "
        "question and answer, prompt and completion, messages or conversations. Say which column is which: "
        f"--data_options.columns '{{{', '.join(pairs)}}}'"
    )


def _are_rows(value: Any) -> bool:
    """Whether a value is an object or a list of objects, and neither a picture nor a conversation."""
    objects = value if isinstance(value, list) else [value]
    return not _are_turns(value) and all(isinstance(one, Mapping) and "bytes" not in one for one in objects)


def _are_turns(value: Any) -> bool:
    """Whether a value is a conversation, by the first of its turns."""
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, Mapping) and not {"role", "from"}.isdisjoint(first)


def _guess_column(target: str, columns: Sequence[str]) -> str | None:
    return next((name for part in _LIKELY[target] for name in columns if part in name.lower()), None)


def _join_names(names: Sequence[str]) -> str:
    return list_some([shorten_text(name, _MOST_SHOWN) for name in names], _SHOWN) or "no columns"
