"""The reasoning that is given apart from the answer: beside a turn's content, in parts of it, or in a column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from balanced_thinking.data.keys import DETAIL_KEY
from balanced_thinking.data.values import (
    first_nonempty_value,
    is_missing,
    is_null,
    refuse_structure_text,
    split_list_text,
    to_list,
    to_text,
)

_FLAGS = {"on", "off", "true", "false", "yes", "no", "enabled", "disabled"}


def read_reasoning(value: Any, key: str) -> str:
    """The reasoning that a turn has under this key: a text, or a list of texts or of parts with one; "" for null.

    A table may have a list of texts as a text. A flag (`off`) is no reasoning. Raises RowProblemError for others.
    """
    if _is_flag(value):
        return ""
    texts = []
    for part in to_list(_split_steps(value, key) if isinstance(value, str) else value):
        text = part
        if isinstance(part, Mapping):
            text = first_nonempty_value(part, "text", "thinking", "summary")
            if text is None and (key == DETAIL_KEY or is_null(part.get("text", part))):  # the first: encrypted
                continue
        texts.append(to_text(part if text is None else text, key).strip())
    return "\n\n".join(text for text in texts if not is_missing(text))


def _is_flag(value: Any) -> bool:
    """Whether a value only says whether there is reasoning, or whether it is wanted."""
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().casefold() in _FLAGS)


def _split_steps(text: str, key: str) -> Any:
    """The list of texts, or of objects with one, that a text is; or the text."""
    listed = split_list_text(text)
    if listed is not None and all(one is None or isinstance(one, str) or _has_text(one) for one in listed):
        return listed
    refuse_structure_text(text, key)
    return text


def _has_text(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("text"), str)
