"""Turns, and parts of a content, that a table has as texts: as pandas, `json.dumps` and `str` write them."""

from __future__ import annotations

import re
from typing import Any

from balanced_thinking.data.turns import ROLES, is_part, role_of
from balanced_thinking.data.values import RowProblemError, is_json, refuse_structure_text, split_list_text

_START = re.compile(r"(?:array\(\s*)?\[?\s*\{\s*['\"]\w+['\"]\s*:")
_MARK = re.compile(
    rf"['\"](?:role|from)['\"]\s*:\s*['\"](?:{'|'.join(ROLES)}|tool)['\"]"
    r"|['\"]type['\"]\s*:\s*['\"](?:text|image|image_url|input_text|input_image|thinking|reasoning)['\"]"
)
_END = re.compile(r"[\]}](?:,\s*dtype=object)?\)?\Z")


def split_turns_text(value: Any) -> Any:
    """The turns or parts that a text is; any other value as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    text = value.strip()
    listed = split_list_text(text if text.startswith("[") else f"[{text}]")
    is_content = bool(listed) and text.startswith("[") and all(map(is_part, listed or ()))
    return listed if is_content or (listed and all(map(role_of, listed))) else value


def split_question_text(value: Any) -> Any:
    """As `split_turns_text`; a list with one text, and texts as Python prints a list of them, too."""
    listed = split_list_text(value) if isinstance(value, str) else None
    if listed and all(isinstance(one, str) for one in listed) and (len(listed) == 1 or not is_json(value)):
        return listed
    return split_turns_text(value)


def refuse_unread_turns(value: Any, name: str) -> None:
    """Raise RowProblemError for a text of turns or parts that cannot be read, and for what Python prints otherwise."""
    if isinstance(value, str):
        refuse_structure_text(value, name)
    if not isinstance(value, str) or not _START.match(text := value.strip()) or not _MARK.search(text):
        return
    if _END.search(text) or "]" not in text:  # the second: a cell that was cut
        raise RowProblemError(
            f"{name} is the text of turns or parts, and it cannot be read (write lists with json.dumps, or keep them "
            f"as lists in JSON Lines or parquet): {value}",
            "not_text",
        )
