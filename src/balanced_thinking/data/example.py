"""One question about pictures, with its reasoning and its answer: what every adapter yields."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

DESCRIBED_PICTURE = "a picture of "  # begins what is in `meta` for a picture's bytes
OWN_META = {"row", "family", "read_as"}  # keys of `meta` that adapters write
_WORDS = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Turn:
    """An earlier turn. `role` is `user` or `assistant`; `image_places` are offsets into `text`, one per picture."""

    role: str
    text: str
    image_places: tuple[int, ...] = ()


@dataclass(frozen=True)
class Example:
    """One sample of any data set.

    Attributes:
        id: unique in its data set.
        question: the text of the prompt, without image placeholders.
        images: in the order of the question; paths stay paths until the batch is built.
        think: the reasoning without tags, None if there is none (evaluation only).
        answer: the answer without tags.
        choices: the texts of the options in the order shown, for scoring; () for an open question. They are not added
            to the question.
        alternatives: other answers that are right as well, for scoring; training writes `answer`.
        system: the text of the system turn, None if there is none.
        history: earlier turns of the conversation, oldest first, without the system turn.
        image_places: where the pictures of the question are, as character offsets into `question`, ascending; () puts
            them before its text. `images` holds the pictures of `history` first.
        meta: anything else, such as `family` (reported separately) and `row` (the sample's position in its file).
    """

    id: str
    question: str
    images: tuple[Path | Image.Image, ...]
    think: str | None
    answer: str
    choices: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    alternatives: tuple[str, ...] = ()
    system: str | None = None
    history: tuple[Turn, ...] = ()
    image_places: tuple[int, ...] = ()


def format_choices(choices: Sequence[Any]) -> str:
    """The options as a question lists them: `A. dog`, one per line."""
    return "\n".join(f"{chr(ord('A') + k)}. {choice}" for k, choice in enumerate(choices))


def format_question(question: str, choices: Sequence[Any] = (), unit: Any = None) -> str:
    """A question, the unit of its answer, and its options."""
    first = f"{question} (Unit: {unit})" if unit else question
    return f"{first}\n{format_choices(choices)}" if choices else first


def choices_are_shown(example: Example) -> bool:
    """Whether the model can read the options: each stands in the question or in an earlier turn."""
    if not example.choices:
        return True
    text = _plain_words(" ".join([example.question, *(turn.text for turn in example.history)]))
    return all(f" {plain} " in text for choice in example.choices if (plain := _plain_words(choice).strip()))


def find_unread_texts(example: Example) -> list[str]:
    """The names in `meta` of texts of several words, also inside lists and objects, and of objects of options.

    These are a row's values that nothing reads.
    """
    return [
        key
        for key, value in example.meta.items()
        if key not in OWN_META and not _is_scene_of_world(key, value) and (holds_words(value) or _is_listed(key, value))
    ]


def _is_listed(key: str, value: Any) -> bool:
    """Whether it is a text of several options that nothing could read, such as `dog,cat`."""
    parts = re.split(r"[,;/|\n]", value) if key == "options" and isinstance(value, str) else []
    return sum(re.search(r"\w", part) is not None for part in parts) > 1


def _is_scene_of_world(key: str, value: Any) -> bool:
    """Whether it is the code of a picture of the embedded world, such as `red circle|-`, and no user's own text."""
    return key == "scene" and isinstance(value, str) and "|" in value


def holds_words(value: Any) -> bool:
    """Whether a value is or has a text of several words, or is an object of options."""
    if isinstance(value, Mapping):
        return {"A", "B"} <= {*value} or any(map(holds_words, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(holds_words, value))
    return isinstance(value, str) and " " in value.strip() and not value.startswith(DESCRIBED_PICTURE)


def _plain_words(text: str) -> str:
    """The words and signs of a text in lower case, each between spaces."""
    return f" {' '.join(_WORDS.findall(text.casefold()))} "
