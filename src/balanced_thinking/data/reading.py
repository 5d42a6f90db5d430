"""A row of a file -> an Example, or one for each turn of the assistant; what is wrong with it as a BadRow."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from balanced_thinking.data.bad_rows import BadRow, UnknownDataError
from balanced_thinking.data.choices import have_labels, remove_labels
from balanced_thinking.data.columns import FormatSpec
from balanced_thinking.data.example import Example, choices_are_shown, format_question
from balanced_thinking.data.keys import ALWAYS_READ, CLAIMED
from balanced_thinking.data.row_parts import find_used_keys
from balanced_thinking.data.schemas import Content, find_schema_keys, read_contents
from balanced_thinking.data.turns import TRAIN_KEYS
from balanced_thinking.data.unread import refuse_unread_media, resolve_image
from balanced_thinking.data.values import RowProblemError, is_null, to_text

logger = logging.getLogger(__name__)
_WEIGHTS = {f"turn.{key}" for key in TRAIN_KEYS}
_CHOICES = {"turns": ("last", "all"), "system": ("keep", "drop")}


class RowSettings(TypedDict, total=False):
    """The options of `RowOptions` by name, as an adapter's `load` passes them on."""

    format: str | Mapping[str, Any]
    turns: str
    system: str
    list_choices: bool


@dataclass(frozen=True)
class RowOptions:
    """How rows are read.

    Args:
        format: reasoning format of the completions. `prose`: those without tags end in "the answer is ..." (`prose`).
        turns: `last` trains on the last turn of a conversation; `all` makes an example of each turn of the assistant.
        system: `keep` or `drop` the system text.
        list_choices: list the options in the question where it does not show them.
    """

    format: FormatSpec = "auto"
    turns: str = "last"
    system: str = "keep"
    list_choices: bool = False

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if (value := getattr(self, name)) not in known:
                raise UnknownDataError(f"option {name!r} is {value!r}; expected {' or '.join(known)}")


class RecordPlace(NamedTuple):
    """Where a record is from: its position in its file, from 1.

    stem: rows without an id are named `<stem>-<row>`. root: the folder at which relative image paths start.
    """

    row: int
    stem: str
    root: Path


def read_rows(
    records: Iterable[tuple[RecordPlace, Mapping[str, Any] | BadRow]], options: RowOptions | None = None
) -> Iterator[Example | BadRow]:
    """Read records; one may become several examples. BadRows are passed on."""
    dropped, hidden, weighted, options = 0, 0, 0, options or RowOptions()
    for place, record in records:
        for found in [record] if isinstance(record, BadRow) else read_row(record, place, options):
            if isinstance(found, Example) and found.system is not None and options.system == "drop":
                found, dropped = replace(found, system=None), dropped + 1
            hidden += isinstance(found, Example) and not choices_are_shown(found)
            weighted += isinstance(found, Example) and not _WEIGHTS.isdisjoint(found.meta)
            yield found
    if dropped:
        logger.warning("the system text of %d samples was left out (system: drop)", dropped)
    if hidden:
        logger.warning("%d samples have choices that the question does not show: list_choices lists them", hidden)
    if weighted:
        logger.warning("%d samples have turns with a weight other than 0 and 1, which is not used", weighted)


def read_row(record: Mapping[str, Any], place: RecordPlace, options: RowOptions) -> list[Example | BadRow]:
    """Read a row in any of the schemas. With `turns="all"`, the exchanges of a conversation are named `<id>#1`, ..."""
    identity = record.get("id")
    try:
        name = None if is_null(identity) else to_text(identity, "id")
        contents = read_contents(record, options.format, options.turns)
        names = [name or f"{place.stem}-{place.row:06d}"]
        if len(contents) > 1:
            names = [f"{names[0]}#{k}" for k in range(1, len(contents) + 1)]
        return [
            _to_example(record, one, place._replace(stem=called), options)
            for one, called in zip(contents, names, strict=True)
        ]
    except RowProblemError as error:
        return [BadRow(place.row, error.problems, error.text, None if is_null(identity) else str(identity))]


def _to_example(
    record: Mapping[str, Any], content: Content | RowProblemError, place: RecordPlace, options: RowOptions
) -> Example | BadRow:
    """The example, named `place.stem`."""
    if isinstance(content, RowProblemError):
        named = not is_null(record.get("id")) or "#" in place.stem
        return BadRow(place.row, content.problems, content.text, place.stem if named else None)
    others = _list_unread_values(record, content)
    refuse_unread_media(record, others, bool(content.images))
    example = Example(
        id=place.stem,
        question=content.question,
        images=tuple(resolve_image(image, place.root) for image in content.images),
        think=content.think,
        answer=content.answer,
        choices=content.choices,
        meta={**content.unread, **_flatten_meta(others), **_about_format(content), "row": place.row},
        alternatives=content.alternatives,
        system=content.system,
        history=content.history,
        image_places=content.image_places,
    )
    if options.list_choices and example.choices and not choices_are_shown(example):
        choices = remove_labels(example.choices) if have_labels(example.choices) else example.choices
        example = replace(example, question=format_question(example.question, choices))
    return example


def _list_unread_values(record: Mapping[str, Any], content: Content) -> dict[str, Any]:
    """What is in a row and not read."""
    read = {*ALWAYS_READ, *find_schema_keys(record), *find_used_keys(record, content.think)}
    said = {content.question, content.answer, *content.alternatives}
    others = {}
    for key, value in record.items():
        is_spare = key in CLAIMED and (is_null(value) or (isinstance(value, str) and value.strip() in said))
        if key not in read and not is_spare:
            others[key] = value
    return others


def _flatten_meta(others: dict[str, Any]) -> dict[str, Any]:
    """The values of an object under `meta` are as good as values of the row."""
    meta = others.get("meta")
    return {key: value for key, value in others.items() if key != "meta"} | meta if isinstance(meta, dict) else others


def _about_format(content: Content) -> dict[str, str]:
    return {} if content.read_as is None else {"read_as": content.read_as}
