"""Single values of a row: null, numbers as text, several right answers, lists that are a text.

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
EMPTY_CELLS = (*NULL_TEXTS, "NaT", "#N/A")  # no answer either
# What other programs write for no value, in lower case. An answer or an option may be one of these, such as "None".
_MISSING = {"nan", "-nan", "<na>", "nat", "none", "null", "n/a", "na", "#n/a", "#na", "-", "--"}
_TEXT_KEYS = ("text", "answer", "value", "label")  # of an object that is one text
_SPELLED_OUT = Decimal(10) ** 21  # larger numbers keep their exponent
_MOST_PYTHON_CHARACTERS = 2**18  # a reply of 32,000 tokens; a text of numbers then takes a second and 150 MiB
_PRINTED_ARRAY = re.compile(r"array\(\[.*\](?:,\s*dtype=[^\[\]]*)?\)", re.DOTALL)
_ARRAY_INSIDE = re.compile(r"['\"]:\s*array\(\[")  # in an object
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


def is_missing(value: Any) -> bool:
    """Whether there is no value, or a text that says so. For values that are no answers: those may be "None"."""
    return is_null(value) or (isinstance(value, str) and value.strip().casefold() in {"", *_MISSING})


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
    if isinstance(value, str):
        value = _split_answer_text(value, key)
    if isinstance(value, (list, tuple)):
        for one in value:
            yield from _iterate_answers(one, key)
    else:
        yield to_text(value, key).strip()


def _split_answer_text(text: str, key: str) -> Any:
    """The list of texts that a text is, or the text. Raises RowProblemError for the text of another structure."""
    listed = split_list_text(text)
    if listed is not None and all(isinstance(one, str | None) for one in listed):
        return listed
    refuse_structure_text(text, key)
    return text


def refuse_structure_text(text: str, key: str) -> None:
    """Raise RowProblemError for an object or a NumPy array as Python prints it. Objects in JSON are texts."""
    text = text.strip()
    ends = text[:1] + text[-1:]
    is_printed = _PRINTED_ARRAY.fullmatch(text) is not None
    if not is_printed and ends in ("[]", "{}") and not is_json(text):
        found = _read_python(text)
        is_printed = isinstance(found, dict) or _ARRAY_INSIDE.search(text) is not None
        is_printed = is_printed or (ends == "[]" and _NO_COMMA.search(text) is not None)
        is_printed = is_printed or (isinstance(found, list) and any(isinstance(one, dict) for one in found))
    if is_printed:
        raise RowProblemError(
            f"{key} is an object or an array as Python prints it; expected a text, or what json.dumps writes: {text}",
            "not_text",
        )


def is_json(text: str) -> bool:
    """Whether a text is valid JSON."""
    try:
        parse_json(text)
    except (ValueError, RecursionError):
        return False
    return True


def parse_object_text(text: str) -> dict[Any, Any] | None:
    """The object that a text is, as Python or JSON writes it; None for any other text."""
    text = text.strip()
    if not (text.startswith("{") and text.endswith("}")):
        return None
    (found,) = split_list_text(f"[{text}]") or (None,)
    return found if isinstance(found, dict) else None


def split_list_text(text: str) -> list[Any] | None:
    """The list that a text is, as Python or JSON writes it (pandas stores such texts); None for any other text."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        found = parse_json(text)
    except (ValueError, RecursionError):
        # Python would join the texts of a NumPy array to one.
        found = None if _NO_COMMA.search(text) else _read_python(text)
    return found if isinstance(found, list) else None


def _read_python(text: str) -> Any:
    """The value that a text is in Python; None for any other text."""
    if len(text) > _MOST_PYTHON_CHARACTERS:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
