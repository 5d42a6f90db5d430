"""The order of the pictures in a sample of an archive: as its JSON names them, else by the numbers in their names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from balanced_thinking.data.keys import NUMBERED_IMAGE, TURN_LISTS
from balanced_thinking.data.picture_files import PICTURE_SUFFIXES
from balanced_thinking.data.values import RowProblemError, first_nonempty_value, split_list_text, to_list

_ENDING = re.compile(rf"\.?(?:{'|'.join(PICTURE_SUFFIXES)})\Z", re.IGNORECASE)
_NUMBER = re.compile(r"(\d+)")
_LISTS = ("images", "image", "file_names", "file_name")  # the first that is there counts
_PLACES = ("path", "image", "file_name", "url", "image_url", "name")  # of a picture in an object


class MemberOrder(NamedTuple):
    """The members that are the row's pictures, and those that nothing reads."""

    shown: list[str]
    others: list[str]


def order_pictures(key: str, members: Sequence[str], record: Mapping[str, Any]) -> MemberOrder:
    """The order of a sample's pictures. `members` are their names behind the sample's `key` and a dot.

    Raises RowProblemError where the JSON names a picture that the archive lacks, and where nothing gives an order.
    """
    named = list(_find_names(record))
    found = [_find_member(name, PurePosixPath(key).name, members) for name in named]
    shown = [member for member in found if member is not None]
    if shown:
        if len(shown) < len(named):
            lost = named[found.index(None)]
            raise RowProblemError(f"{lost} is not in the archive, whose sample has {_join(members)}", "missing_image")
        return MemberOrder(shown, [member for member in members if member not in shown])
    if len(named) > len(members):
        raise RowProblemError(f"{_join(named)} are named, but the sample has only {_join(members)}", "missing_image")
    return MemberOrder(_sort_by_number(members), [])


def _find_names(record: Mapping[str, Any]) -> Iterator[str]:
    """The names of a row's pictures in their order, from the first place that has some."""
    if (cell := first_nonempty_value(record, *_LISTS)) is not None:
        yield from _names_in_cell(cell)
        return
    numbered = {int(found[1]): key for key in record if (found := NUMBERED_IMAGE.fullmatch(str(key)))}
    if numbered:
        for number in sorted(numbered):
            yield from _names_in_cell(record[numbered[number]])
        return
    for name in (*TURN_LISTS, "prompt", "question"):
        yield from _names_in_turns(record.get(name))


def _names_in_cell(cell: Any) -> Iterator[str]:
    listed = split_list_text(cell) if isinstance(cell, str) else None
    for entry in to_list(cell if listed is None else listed):
        name = first_nonempty_value(entry, *_PLACES) if isinstance(entry, Mapping) else entry
        name = name.get("url") if isinstance(name, Mapping) else name
        if isinstance(name, str) and name:
            yield name


def _names_in_turns(turns: Any) -> Iterator[str]:
    """The pictures that parts of the turns name."""
    if isinstance(turns, list):
        for turn in turns:
            yield from _names_in_turns(turn)
    elif isinstance(turns, Mapping):
        if turns.get("type") in ("image", "image_url"):
            yield from _names_in_cell([turns])
        else:
            yield from _names_in_turns(turns.get("content"))


def _find_member(name: str, key: str, members: Sequence[str]) -> str | None:
    """The member that a path or a name means, also without the sample's name or with another picture's suffix."""
    written = PurePosixPath(name).name
    exact = [member for member in members if written in (f"{key}.{member}", member)]
    stem = _ENDING.sub("", written)
    alike = [member for member in members if stem in ((f"{key}.{_stem(member)}").rstrip("."), _stem(member) or None)]
    found = exact or alike
    return found[0] if len(found) == 1 else None


def _stem(member: str) -> str:
    return _ENDING.sub("", member)


def _sort_by_number(members: Sequence[str]) -> list[str]:
    """The members in the order of their numbers. Raises RowProblemError for names without such an order."""
    if len(members) < 2:
        return list(members)
    parts = {member: _NUMBER.split(_stem(member)) for member in members}
    texts = {tuple(split[::2]) for split in parts.values()}
    firsts = {tuple(split[:1]) for split in parts.values()}
    # `view_2` with equal texts and any numbers; or `1_left`, `2_right`, where the first numbers differ.
    orders = [{member: [int(one) for one in split[1::2]] for member, split in parts.items()}]
    orders = orders if len(texts) == 1 else []
    if len(firsts) == 1 and all(len(split) > 1 for split in parts.values()):
        orders.append({member: [int(split[1])] for member, split in parts.items()})
    for numbers in orders:
        if len({tuple(found) for found in numbers.values()}) == len(members):
            return sorted(members, key=lambda member: numbers[member])
    raise RowProblemError(
        f"{len(members)} pictures whose order is not known: {_join(members)}; expected numbers in their names, or "
        "their names under images in the JSON",
        "unread_image",
    )


def _join(names: Sequence[str]) -> str:
    return ", ".join(names[:10])
