"""Single values of a row: null, numbers as text, several right answers, the options of a question.

NaN is null, because that is what `json.dumps` and pandas make of an empty cell. `4.0` is `4`, because a column of whole
numbers with a gap becomes one of floats.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Mapping, Sized
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

from balanced_thinking.config.foreign_json import parse_json

MOST_VALUES = 10_000  # turns, images or options of a row
NULL_TEXTS = ("nan", "NaN", "<NA>")  # what pandas makes of an empty cell as text
_TEXT_KEYS = ("text", "answer", "value", "label")  # of an object that is one text
_SPELLED_OUT = Decimal(10) ** 21  # larger numbers keep their exponent
_OPTION_LABELS, _OPTION_TEXTS = ("label", "key", "id", "letter"), ("text", "value", "content", "option")  # of an object
_LABEL = re.compile(r"\s*[(\[]?([A-Z]|[a-z])[.):\]]\s*")
_LABEL_MARKS = re.compile(r"^[\s(\[]+|[\s.):\]]+$")
_NUMBER = re.compile(r"\d{1,3}", re.ASCII)  # as a key of an object
_MOST_LIST_CHARACTERS = 2**16
_NO_COMMA = re.compile(r"""['"]\s+['"]""")


class RowProblemError(Exception):
    """The row that is being read is bad. `problems` are keys of `PROBLEMS`; `text` is the text that has them."""

    def __init__(self, text: str, *problems: str) -> None:
        self.text, self.problems = text, problems
        super().__init__(text)


def refuse_many(values: Sized, name: str) -> None:
    """Raise RowProblemError for more values than a row can have."""
    if len(values) > MOST_VALUES:
        raise RowProblemError(f"{len(values)} {name}", "too_many_values")


def is_null(value: Any) -> bool:
    """Whether there is no value: null, NaN, an empty text or an empty list."""
    if value is None or isinstance(value, str):
        return not value
    if isinstance(value, (bool, int)):
        return False
    if isinstance(value, (list, tuple, dict)):
        return not value
    return isinstance(value, Real) and bool(value != value)


def first_nonempty_value(record: Mapping[str, Any], *keys: str) -> Any:
    """The first value that is not null or empty. Joined files have null for the keys that a row lacks."""
    for key in keys:
        if not is_null(value := record.get(key)):
            return value
    return None


def to_list(value: Any) -> list[Any]:
    """A list stays, null becomes [], another value becomes [value]."""
    if isinstance(value, (list, tuple)):
        return list(value)
    return [] if is_null(value) and value != "" else [value]


def to_text(value: Any, key: str) -> str:
    """Text, or a number as text; null is an empty text. Raises RowProblemError for another value of `key`."""
    if isinstance(value, str):
        return value
    if is_null(value):
        return ""
    if isinstance(value, bool) or type(value).__name__ == "bool_":
        raise RowProblemError(f"{key} is {value}", "not_text")
    if isinstance(value, (Real, Decimal)):
        return _number_to_text(value, key)
    raise RowProblemError(f"{key} is neither text nor a number: {value!r}", "not_text")


def _number_to_text(value: Real | Decimal, key: str) -> str:
    if isinstance(value, Integral):
        return str(int(value))
    if not math.isfinite(float(value)):
        raise RowProblemError(f"{key} is {value}", "not_finite")
    exact = value if isinstance(value, Decimal) else Decimal(repr(float(value)))
    if abs(exact) >= _SPELLED_OUT:
        return str(value)
    plain = format(exact, "f")
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return "0" if plain in ("-0", "") else plain


def to_answers(value: Any, key: str = "answer") -> tuple[str, ...]:
    """The right answers in their order, each once.

    Takes a text, a number, a list of such (ChartQA), objects with one text (VQA's annotations), and objects with
    `aliases` (TriviaQA). Raises RowProblemError for anything else.
    """
    if key == "answer" and _are_numbers(value):  # the corners of a box
        raise RowProblemError(f"answer is a list of numbers; expected the text of the answer: {value}", "not_text")
    return tuple(dict.fromkeys(text for text in _iterate_answers(value, key) if text))


def _are_numbers(value: Any) -> bool:
    """Whether it is a list of different numbers. Several right answers are texts."""
    if not isinstance(value, (list, tuple)) or any(isinstance(one, bool) or not isinstance(one, Real) for one in value):
        return False
    return all(map(math.isfinite, value)) and len({*map(float, value)}) > 1


def _iterate_answers(value: Any, key: str) -> Iterable[str]:
    if isinstance(value, Mapping):
        found = [value[name] for name in _TEXT_KEYS if name in value]
        if not found:
            raise RowProblemError(f"{key} is an object without {', '.join(_TEXT_KEYS)}: {value!r}", "not_text")
        value = [found[0], *to_list(value.get("aliases"))]
    if isinstance(value, str) and (listed := split_list_text(value)) and all(isinstance(one, str) for one in listed):
        value = listed
    if isinstance(value, (list, tuple)):
        for one in value:
            yield from _iterate_answers(one, key)
    else:
        yield to_text(value, key).strip()


def to_choices(value: Any) -> tuple[str, ...]:
    """The options in their order.

    Takes a list, also of objects with a label and a text; an object of letters (`{"A": "dog"}`), or of numbers from 0
    or 1; lists under `text` and `label`; and a text that is written like one of these, like lines `A. dog`, or with
    bars (`dog | cat`). Null at the end fills a table up and is left out. Raises RowProblemError otherwise, and for
    labels in another order, because a letter would then mean another option.
    """
    value = parse_choices_text(value) if isinstance(value, str) else value
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
    are_marks = {*labels} <= {0, 1} and (len({*labels}) < len(labels) or all(isinstance(one, bool) for one in labels))
    shown = [_plain_label(label) for label in labels]
    count = sum(not is_null(text) for text in texts)
    if labels and not are_marks and (len(labels) != count or shown not in _list_labels(len(shown))):
        raise RowProblemError(
            f"the labels of {count} options are {labels}; expected A, B, ... in order: sort the options", "not_text"
        )


def _refuse_other_order(choices: Iterable[Any]) -> None:
    """Raise RowProblemError for options that all begin with a label, but not with A, B, ... in order.

    Names with initials (`N. Bohr`) are no labels: those go at most one letter beyond the number of options.
    """
    texts = [choice for choice in choices if isinstance(choice, str)]
    found = [_LABEL.match(text) for text in texts]
    letters = [one[1].upper() for one in found if one]
    if len(texts) < 2 or None in found or len({*letters}) < len(letters) or have_labels(texts):
        return
    are_initials = all(one and one[0].strip()[1:] == "." and one[1].isupper() for one in found)
    if not are_initials or max(letters) <= chr(ord("A") + len(letters)):
        raise RowProblemError(
            f"the options begin with {', '.join(letters)}; expected A, B, ... in order, by which answers are scored: "
            f"sort the options, or leave their letters out: {texts!r}",
            "not_text",
        )


def parse_choices_text(text: str) -> Any:
    """The options that a text lists: a list, an object, lines with letters, parts between bars; else the text."""
    listed = split_list_text(text) or parse_object_text(text) or _split_lettered_lines(text)
    return listed or _split_at_bars(text) or text


def parse_object_text(text: str) -> dict[Any, Any] | None:
    """The object that a text is, as Python or JSON writes it; None for any other text."""
    text = text.strip()
    if not (text.startswith("{") and text.endswith("}")):
        return None
    (found,) = split_list_text(f"[{text}]") or (None,)
    return found if isinstance(found, dict) else None


def _split_at_bars(text: str) -> list[str] | None:
    parts = [part.strip() for part in text.split(" | " if " | " in text else "|")]
    return parts if len(parts) > 1 and all(parts) else None


def split_list_text(text: str) -> list[Any] | None:
    """The list that a text is, as Python or JSON writes it (pandas stores such texts); None for any other text."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")) or len(text) > _MOST_LIST_CHARACTERS:
        return None
    if _NO_COMMA.search(text):  # a NumPy array as text, whose texts Python would join to one
        return None
    for read in (parse_json, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return found if isinstance(found, list) else None
    return None


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
