"""The parts of a row that every schema may have: pictures, options, a system text, earlier turns."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from balanced_thinking.data.choices import parse_choices_text, to_choices
from balanced_thinking.data.columns import peel_tags
from balanced_thinking.data.keys import (
    ALTERNATIVE_KEYS,
    ANSWER_KEYS,
    CHOICE_KEYS,
    NUMBERED_IMAGE,
    SYSTEM_KEYS,
    THINK_KEYS,
)
from balanced_thinking.data.listed_turns import refuse_unread_turns, split_question_text
from balanced_thinking.data.reasoning import read_reasoning
from balanced_thinking.data.turns import read_system_cell
from balanced_thinking.data.unread import is_picture_cell, refuse_other_pictures
from balanced_thinking.data.values import (
    EMPTY_CELLS,
    RowProblemError,
    first_nonempty_value,
    is_missing,
    is_null,
    parse_object_text,
    split_list_text,
    to_list,
)

_LETTER = re.compile(r"([A-Z])")
_NO_OPTIONS, _PERHAPS_OPTIONS = (*EMPTY_CELLS, "NULL", "null"), ("None", "N/A")
_OPTION = re.compile(r"(?:(?:option|choice|opt)[ _-]?|op[ _-]?(?=[a-z]))([a-z]|\d{1,2})", re.IGNORECASE | re.ASCII)


def read_images(record: Mapping[str, Any]) -> list[Any]:
    """The entries under `images` or `image`, else those under `image_1`, `image_2` and so on.

    A list of nulls, as tables write it for no picture, is none. Raises RowProblemError for a picture beside them that
    is not one of them.
    """
    several, single = (_read_entries(record.get(key)) for key in ("images", "image"))
    numbered = [record[key] for key in find_numbered_images(record)]
    found = several or single or numbered
    beside = [*(single if several else ()), *(filter(is_picture_cell, numbered) if several or single else ())]
    refuse_other_pictures(found, beside, "beside images or image")
    return found


def _read_entries(cell: Any) -> list[Any]:
    if is_missing(cell):
        return []
    if isinstance(cell, str):
        listed = split_list_text(cell)
        cell = parse_object_text(cell) or cell if listed is None else listed
    entries = to_list(cell)
    return entries if any(entry is not None for entry in entries) else []


def find_numbered_images(record: Mapping[str, Any]) -> list[str]:
    """The names of a row's numbered pictures, in their order; empty ones fill a table up."""
    numbered = ((found, key) for key in record if (found := NUMBERED_IMAGE.fullmatch(str(key))))
    names = {int(found[1]): key for found, key in numbered if not is_null(record[key])}
    return [names[number] for number in sorted(names)]


def find_choice_keys(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The names under which a row has its options: `choices`, `options` where they clearly are, or a column for each.

    Of columns for each, the empty ones at the end are left out; one between others is a null option.
    """
    for key in CHOICE_KEYS:
        if not is_null(record.get(key)) and (key == "choices" or _look_like_choices(record[key])):
            return (key,)
    for columns, are_letters in _find_option_columns(tuple(record)):
        keys = _without_spare_columns(record, [*columns])
        if len(keys) > 1 and (are_letters or not _names_column(record.get("answer"), keys)):
            return tuple(keys)
    return ()


@lru_cache(maxsize=1024)  # most files have the same names in every row
def _find_option_columns(names: tuple[str, ...]) -> list[tuple[tuple[str, ...], bool]]:
    """The columns that may hold an option each, in their order, and whether they are called `A`, `B`, ..."""
    found = []
    for pattern, firsts in ((_LETTER, "A"), (_OPTION, "A01")):
        labelled = {match[1].upper(): name for name in names if (match := pattern.fullmatch(str(name)))}
        for first in firsts:
            labels = (chr(ord("A") + k) if first == "A" else str(int(first) + k) for k in range(26))
            columns = tuple(labelled[label] for label in itertools.takewhile(labelled.__contains__, labels))
            found.append((columns, pattern is _LETTER))
    return [(columns, are_letters) for columns, are_letters in found if len(columns) > 1]


def _without_spare_columns(record: Mapping[str, Any], keys: list[str]) -> list[str]:
    """The columns of options without those at the end that only fill a table up."""
    kept, before = [*keys], None
    while kept:
        value = record[kept[-1]]
        said = str(value).strip()
        is_repeated = is_missing(value) and said in (before, str(record[kept[-2]]).strip() if len(kept) > 1 else None)
        if not (is_null(value) or is_repeated or _is_no_option(record, said, chr(ord("A") + len(kept) - 1))):
            break
        before = None if is_null(value) else said
        kept.pop()
    return kept


def _is_no_option(record: Mapping[str, Any], said: str, letter: str) -> bool:
    """Whether an option is a text for no value. `None` may be one that is meant, so an answer must not name it."""
    answer = next((str(record[key]) for key in ANSWER_KEYS if not is_null(record.get(key))), None)
    if said not in _NO_OPTIONS and not (said in _PERHAPS_OPTIONS and answer is not None):
        return False
    return answer is None or (said not in answer and re.search(rf"\b{letter}\b", answer) is None)


def _names_column(answer: Any, keys: list[str]) -> bool:
    """Whether an answer is the number or the name of a column such as `option1`: scorers compare texts and letters."""
    written, names = str(answer).strip().casefold(), [str(key).casefold() for key in keys]
    return written in names or (written.isdecimal() and any(name.endswith(written) for name in names))


def _look_like_choices(value: Any) -> bool:
    try:
        return len(to_choices(value)) > 1
    except RowProblemError:  # options with a fault of theirs
        if isinstance(value, str):
            try:
                value = parse_choices_text(value)
            except RowProblemError:  # lines with letters in another order
                return True
        if isinstance(value, Mapping):
            return {"A", "B"} <= {str(name).upper() for name in value}
        return isinstance(value, (list, tuple)) and len(value) > 1 and any(map(_is_like_an_option, value))


def _is_like_an_option(entry: Any) -> bool:
    return isinstance(entry, str) or (
        isinstance(entry, Mapping) and not {"text", "label", "A", "bytes"}.isdisjoint(entry)
    )


def read_choices(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The options in their order. Raises RowProblemError."""
    keys = find_choice_keys(record)
    if len(keys) == 1:
        return to_choices(record[keys[0]])
    return to_choices({chr(ord("A") + place): record[key] for place, key in enumerate(keys)})


def read_system(record: Mapping[str, Any], spoken: str | None) -> str | None:
    """The text of the system turn, or of a column for it. Raises RowProblemError if two of them differ."""
    given = dict.fromkeys(text for text in (*_system_texts(record).values(), spoken) if text)
    if len(given) > 1:
        raise RowProblemError(" / ".join(given), "two_systems")
    return next(iter(given), None)


def _system_texts(record: Mapping[str, Any]) -> dict[str, str]:
    """The texts of the columns for the system text, by name. Raises RowProblemError."""
    for key in SYSTEM_KEYS:
        refuse_unread_turns(split_question_text(record.get(key)), key)
    cells = {key: read_system_cell(split_question_text(record[key]), key) for key in SYSTEM_KEYS if key in record}
    return {key: text for key, text in cells.items() if text is not None}


def read_history(record: Mapping[str, Any]) -> list[Any]:
    """The turns before the question under `history`: turns, or pairs of a question and a reply. [] for other values.

    A table may have the list as a text.
    """
    given, turns = record.get("history"), []
    entries = split_list_text(given) or [] if isinstance(given, str) else to_list(given)
    for entry in entries:
        if isinstance(entry, Mapping):
            turns.append(entry)
        elif isinstance(entry, (list, tuple)) and len(entry) == 2:
            turns += [{"role": role, "content": said} for role, said in zip(("user", "assistant"), entry, strict=True)]
        else:
            return []
    return turns


def read_row_reasoning(record: Mapping[str, Any]) -> str | None:
    """The reasoning in the first column for it that has one. Raises RowProblemError."""
    return next((text for key in THINK_KEYS if (text := read_reasoning(record.get(key), key))), None)


def find_used_keys(record: Mapping[str, Any], think: str | None) -> set[str]:
    """The names of values that are read in this row although they are not read in every row."""
    used = {*find_choice_keys(record), *(key for key in ALTERNATIVE_KEYS if not is_null(record.get(key)))}
    used |= set() if first_nonempty_value(record, "images", "image") else {*find_numbered_images(record)}
    used |= {"history"} if read_history(record) else set()
    used |= {*_system_texts(record)}
    given = [key for key in THINK_KEYS if think and not is_missing(record.get(key))]
    written = {key: think if _is_list_of_steps(record[key]) else record[key] for key in given[:1]}
    written |= {key: record[key] for key in given[1:] if isinstance(record[key], (str, int, float))}
    return used | {key for key, value in written.items() if think and _is_part_of(str(value), think)}


def _is_list_of_steps(value: Any) -> bool:
    """Whether reasoning is a list, perhaps as a text."""
    return not isinstance(value, (str, int, float)) or (isinstance(value, str) and split_list_text(value) is not None)


def _is_part_of(written: str, think: str) -> bool:
    """Whether a column's text is what was read as reasoning, or one of the two texts of it."""
    return think in written or peel_tags(written, "auto", "think") in think
