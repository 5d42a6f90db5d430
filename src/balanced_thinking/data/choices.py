"""The options of a question, in every form that files have: lists, objects, lettered lines, and texts of these."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from balanced_thinking.data.values import (
    RowProblemError,
    is_missing,
    is_null,
    parse_object_text,
    refuse_many,
    refuse_structure_text,
    split_list_text,
    to_list,
    to_text,
)

_OPTION_LABELS, _OPTION_TEXTS = ("label", "key", "id", "letter"), ("text", "value", "content", "option")  # of an object
# Not the first letter of `a.m.` and `A.D.`, nor a part of a name in chemistry: `(E)-but-2-ene`.
_LABEL = re.compile(r"\s*[(\[]?([A-Z]|[a-z])[.):\]](?![A-Za-z]\.|-(?:[a-z]|\d+-))\s*")
_NAME_MARKS = (".", ":")  # what may follow the first letter of an option that has no label
_LABEL_MARKS = re.compile(r"^[\s(\[]+|[\s.):\]]+$")
_NUMBER = re.compile(r"\d{1,3}", re.ASCII)  # as a key of an object


def to_choices(value: Any) -> tuple[str, ...]:
    """The options in their order.

    Takes a list, also of objects with a label and a text; an object of letters (`{"A": "dog"}`), or of numbers from 0
    or 1; lists under `text` and `label`; and a text that is written like one of these, like lines `A. dog`, or with
    bars (`dog | cat`). Null at the end fills a table up and is left out. Raises RowProblemError otherwise, and for
    labels in another order, because a letter would then mean another option.
    """
    value = parse_choices_text(value) if isinstance(value, str) else value
    if isinstance(value, str):
        refuse_structure_text(value, "choices")
    labelled = isinstance(value, Mapping) and ("text" not in value or not {*_OPTION_LABELS, "labels"}.isdisjoint(value))
    if isinstance(value, Mapping):
        value = _choices_of_object(value)
    choices = to_list(value)
    if len(choices) > 1 and all(isinstance(choice, Mapping) for choice in choices):
        labelled = labelled or any(name in choices[0] for name in _OPTION_LABELS)
        choices = _texts_of_objects(choices)
    if not labelled:
        _refuse_other_order([choice for choice in choices if not is_null(choice)])
    while choices and choices[-1] != "" and is_null(choices[-1]):
        choices.pop()
    refuse_many(choices, "options")
    if any(choice != "" and is_null(choice) for choice in choices):
        raise RowProblemError(f"the options are {choices!r}", "null_choice")
    return tuple(to_text(choice, "choices") for choice in choices)


def _texts_of_objects(choices: list[Any]) -> list[Any]:
    """The texts of options such as `{"label": "A", "text": "dog"}`, `{"text": "dog"}` or `{"A": "dog"}`."""
    pairs = [_split_option(choice) for choice in choices]
    labels = [label for label, _ in pairs]
    if labels not in ([None] * len(labels), *_list_labels(len(labels))):
        raise RowProblemError(f"the labels of the options are {labels}; expected A, B, ... in order", "not_text")
    return [text for _, text in pairs]


def _split_option(choice: Mapping[str, Any]) -> tuple[str | None, Any]:
    """The label of an option, in capitals, and its text. Marks such as `correct: true` are no part of it."""
    if len(choice) == 1 and not {*choice} <= {*_OPTION_TEXTS}:
        ((letter, said),) = choice.items()
        return str(letter).upper(), said
    label = next((name for name in _OPTION_LABELS if name in choice), None)
    text = next((name for name in _OPTION_TEXTS if name in choice), None)
    others = [one for name, one in choice.items() if name not in (label, text)]
    if text is None or any(not (isinstance(one, bool) or is_null(one)) for one in others):
        raise RowProblemError(f"an option is an object; expected a label and a text in it: {choice!r}", "not_text")
    return None if label is None else _plain_label(choice[label]), choice[text]


def _plain_label(label: Any) -> str:
    """A label in capitals and without marks: `A` for `(a)`."""
    return _LABEL_MARKS.sub("", str(label)).upper()


def _list_labels(count: int) -> tuple[list[str], ...]:
    """The labels that these many options may have."""
    letters = [chr(ord("A") + k) for k in range(count)]
    return (letters, *([str(k + n) for k in range(count)] for n in (0, 1)))


def _choices_of_object(value: Mapping[str, Any]) -> Any:
    if isinstance(value.get("text"), (list, tuple)):
        given = (value.get(name) for name in (*_OPTION_LABELS, "labels"))
        _check_label_list(next((labels for labels in given if isinstance(labels, (list, tuple))), ()), value["text"])
        return value["text"]
    numbered = all(_NUMBER.fullmatch(str(name)) for name in value)
    refuse_many(value, "options")
    names = sorted(value, key=(lambda name: int(str(name))) if numbered else str)
    shown = [str(name).upper() for name in names]
    if shown not in _list_labels(len(names)):
        raise RowProblemError(f"the options are an object that does not begin with A, B or 0, 1: {value!r}", "not_text")
    return [value[name] for name in names]


def _check_label_list(labels: Iterable[Any], texts: Iterable[Any]) -> None:
    """Raise RowProblemError for labels beside a list of texts that are not A, B, ... in order. Nulls fill a table up.

    True and false, or 1 and 0 several times, mark the right options.
    """
    labels = [label for label in labels if not is_null(label)]
    may_be_labels = labels in ([0], [1], [0, 1], [1, 0]) and not all(isinstance(one, bool) for one in labels)
    are_marks = all(one in (0, 1) for one in labels) and not may_be_labels
    shown = [_plain_label(label) for label in labels]
    count = sum(not is_null(text) for text in texts)
    if labels and not are_marks and (len(labels) != count or shown not in _list_labels(len(shown))):
        raise RowProblemError(
            f"the labels of {count} options are {labels}; expected A, B, ... in order: sort the options", "not_text"
        )


def _refuse_other_order(choices: Iterable[Any]) -> None:
    """Raise RowProblemError for options that all begin with a label, but not with A, B, ... in order.

    Initials (`N. Bohr`) and names (`X: up`) are no labels: those go at most one letter beyond the number of options.
    """
    texts = [choice for choice in choices if isinstance(choice, str)]
    found = [_LABEL.match(text) for text in texts]
    letters = [one[1].upper() for one in found if one]
    if len(texts) < 2 or None in found or len({*letters}) < len(letters) or have_labels(texts):
        return
    are_names = all(one and one[0].strip()[1:] in _NAME_MARKS and one[1].isupper() for one in found)
    if not are_names or max(letters) <= chr(ord("A") + len(letters)):
        raise RowProblemError(
            f"the options begin with {', '.join(letters)}; expected A, B, ... in order, by which answers are scored: "
            f"sort the options, or leave their letters out: {texts!r}",
            "not_text",
        )


def parse_choices_text(text: str) -> Any:
    """The options that a text lists: a list, an object, lines with letters, parts between bars; else the text."""
    if is_missing(text):
        return []
    for listed in (split_list_text(text), parse_object_text(text)):
        if listed is not None:
            return listed
    return _split_lettered_lines(text) or _split_at_bars(text) or text


def _split_at_bars(text: str) -> list[str] | None:
    parts = [part.strip() for part in text.split(" | " if " | " in text else "|")]
    return parts if len(parts) > 1 and all(parts) else None


def _split_lettered_lines(text: str) -> list[str] | None:
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and have_labels(lines):
        return remove_labels(lines)
    _refuse_other_order(lines)
    return None


def have_labels(choices: Iterable[str]) -> bool:
    """Whether every option begins with its letter: `A. dog`, `(B) cat`; or `a) dog`, `b) cat`."""
    letters = [found[1] if (found := _LABEL.match(choice)) else "" for choice in choices]
    return bool(letters) and any(letters == [chr(ord(first) + k) for k in range(len(letters))] for first in "Aa")


def remove_labels(choices: Iterable[str]) -> list[str]:
    """The options without their letters."""
    return [_LABEL.sub("", choice, count=1).strip() for choice in choices]
