"""Tags that no format has, such as `<thinking>`: the definition of a format that reads them."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from balanced_thinking.data.columns import ANSWER_NAMES, THINK_NAMES
from balanced_thinking.segments import FORMATS

_ATTRIBUTE = r"(?:\s[\w ]{0,20}=[^<>\[\]|]{0,80})?"  # such as type="short"
_TAG = re.compile(
    rf"(?P<left><\||<|\[|&lt;)\s*(?P<name>[A-Za-z][\w: ]{{0,30}}?){_ATTRIBUTE}\s*(?P<right>\|>|>|\]|&gt;)"
)
_BEGIN = r"(?:begin_of_|start_of_|[a-z]{1,20}:)?"
_THINK_NAME = re.compile(rf"{_BEGIN}(?:{THINK_NAMES})", re.IGNORECASE)
_ANSWER_NAME = re.compile(rf"{_BEGIN}(?:{ANSWER_NAMES}|solution|output|response|result)", re.IGNORECASE)
_KNOWN = {tag for shape in FORMATS.values() for tag in shape.tag_kinds}
_NEW_TAG_PROBLEMS = {"no_think", "no_answer", "missing_open_think", "text_before_think"}


class TagPair(NamedTuple):
    """An opening tag and its closing tag, "" if the text has none; and where they end."""

    opening: str
    closing: str
    end: int


def find_tag_hint(text: str) -> str | None:
    """What to do about tags that look like those of reasoning and belong to no format; None without such tags.

    For `<thinking>Two.</thinking>2` it names `<thinking>` and gives the `--reasoning_format` that reads it.
    """
    think = _find_pair(text, _THINK_NAME, 0)
    answer = _find_pair(text, _ANSWER_NAME, think.end if think else 0)
    odd = next((pair for pair in (think, answer) if pair and pair.opening not in _KNOWN), None)
    if odd is None or think is None:
        return None
    if not odd.closing:
        return f"{odd.opening} looks like an opening tag, but it is never closed: write the tags of one format"
    tags = {"think_open": think.opening, "think_close": think.closing}
    tags |= {"answer_open": answer.opening, "answer_close": answer.closing} if answer else {}
    listed = ", ".join(f"{name}: {_quote(tag)}" for name, tag in tags.items() if tag)
    option = f"--reasoning_format '{{{listed}}}' (inspect, convert: --data_options.format)"
    return f"{odd.opening} looks like an opening tag; give {option}"


def _quote(tag: str) -> str:
    """The tag as YAML reads it, between single quotes of a shell."""
    return json.dumps(tag, ensure_ascii=False).replace("'", "\\u0027")


def find_row_hint(text: str, problems: tuple[str, ...]) -> str | None:
    """`find_tag_hint` for the text of a bad row, if it has one of the problems that such tags cause."""
    return None if _NEW_TAG_PROBLEMS.isdisjoint(problems) else find_tag_hint(text)


def _find_pair(text: str, names: re.Pattern[str], start: int) -> TagPair | None:
    """The first opening tag with such a name from `start` on, and its closing tag."""
    opening = next((tag for tag in _TAG.finditer(text, start) if names.fullmatch(tag["name"])), None)
    if opening is None:
        return None
    ended = re.sub(r"^(?:begin|start)_", "end_", opening["name"])
    slash = r"/\s*" if ended == opening["name"] else ""
    closing = re.compile(rf"{re.escape(opening['left'])}\s*{slash}{re.escape(ended)}\s*{re.escape(opening['right'])}")
    found = closing.search(text, opening.end())
    return TagPair(opening[0], found[0] if found else "", found.end() if found else opening.end())
