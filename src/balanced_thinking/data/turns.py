"""Conversations: turns of any spelling -> messages, whose texts have `<image>` where their pictures are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from balanced_thinking.data.example import holds_words
from balanced_thinking.data.keys import DETAIL_KEY, OWN_TURN_KEYS, TURN_THINK_KEYS
from balanced_thinking.data.places import PLACEHOLDER
from balanced_thinking.data.reasoning import read_reasoning
from balanced_thinking.data.turn_media import UnreadPicture, find_turn_pictures, inline_sources
from balanced_thinking.data.unread import refuse_other_pictures
from balanced_thinking.data.values import (
    RowProblemError,
    first_nonempty_value,
    is_missing,
    is_null,
    refuse_many,
    to_list,
    to_text,
)
from balanced_thinking.segments import parse

ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
_TEXT_PARTS = ("text", "input_text", "output_text")
_IMAGE_PARTS = ("image", "input_image", "image_url", "image_path")
THINK_PARTS = ("thinking", "reasoning", "thought")
_THINK_SOURCES = (*THINK_PARTS, "text", "content", "summary", "value")
MEDIA_PARTS = ("video", "video_url", "audio", "audio_url", "input_audio", "input_video")
_IMAGE_SOURCES = ("image", "image_url", "path", "url", "image_path", "bytes", "value")
_TEXT_KEYS, _IMAGE_KEYS = {"type", "text", "thought", "index"}, {"type", "index", *_IMAGE_SOURCES}
_INDEXED = re.compile(r"<image_\d+>")
# OpenAI's, ms-swift's, Axolotl's, LLaMA-Factory's
TRAIN_KEYS = ("weight", "loss", "train", "training", "trainable", "loss_scale", "loss_weight")
_MESSAGE_KEYS = frozenset(("role", "from", "content", "value"))
_SPOKEN_KEYS = _MESSAGE_KEYS | {"type", "text"}
_TOOL_KEYS = ("tool_calls", "function_call")
_READ_KEYS = {"text", "image", "images", *_MESSAGE_KEYS, *TURN_THINK_KEYS, *TRAIN_KEYS, *_TOOL_KEYS}


class Message(NamedTuple):
    """A turn. `reasoning` is what stood beside the content, or in parts of its own; None without. `untrained`: the mark
    that says not to train on it, such as `weight: 0`. `unread`, `unread_pictures`: under keys that are not read."""

    role: str
    text: str
    images: list[Any]
    reasoning: str | None = None
    untrained: str | None = None
    unread: Mapping[str, Any] = MappingProxyType({})
    unread_pictures: tuple[UnreadPicture, ...] = ()


class Talk(NamedTuple):
    """A conversation: the system text, and messages of user and assistant in turn, the user's first.

    unread_pictures: of all turns.
    """

    system: str | None
    messages: list[Message]
    unread_pictures: tuple[UnreadPicture, ...] = ()


def read_talk(turns: Iterable[Any]) -> Talk:
    """Read turns, joined as by `_join_turns`. Raises RowProblemError for an order without a meaning."""
    turns = list(turns)
    refuse_many(turns, "turns")
    messages = [read_message(turn) for turn in turns]
    roles = [message.role for message in messages]
    first = next((k for k, role in enumerate(roles) if role != "system"), len(roles))
    system, spoken = messages[:first], _join_turns(messages[first:])
    if any(message.images or PLACEHOLDER in message.text for message in system):
        raise RowProblemError("a picture in the system turn", "image_count")
    if "assistant" not in roles:
        raise RowProblemError(" / ".join(message.text for message in spoken), "no_answer")
    expected = ["user", "assistant"] * (len(spoken) // 2)
    if [message.role for message in spoken] != expected:
        raise RowProblemError(f"turns: {', '.join(roles)}", "multi_turn")
    return Talk(
        _join_texts(system), spoken, tuple(picture for message in messages for picture in message.unread_pictures)
    )


def _join_turns(messages: list[Message]) -> list[Message]:
    """The messages with several of the user in a row as one, and a turn of reasoning alone with its answer."""
    joined: list[Message] = []
    for message in messages:
        before = joined[-1] if joined else None
        is_user = before is not None and message.role == before.role == "user"
        if before is not None and (is_user or _is_reasoning_of(before, message)):
            joined.pop()
            message = message._replace(
                text=before.text + ("\n" if is_user else "") + message.text,
                images=before.images + message.images,
                unread={**before.unread, **message.unread},
            )
        joined.append(message)
    return joined


def _is_reasoning_of(before: Message, message: Message) -> bool:
    """Whether a turn of the assistant holds only the reasoning of the next one, as ms-swift's rows have it."""
    if not before.role == message.role == "assistant" or before.reasoning or message.reasoning:
        return False
    parsed = parse(before.text, "auto")
    is_closed = parsed.think is not None and "unclosed_think" not in parsed.problems
    return is_closed and parsed.answer is None and before.untrained == message.untrained


def read_message(turn: Any) -> Message:
    """Read one turn of any spelling. Raises RowProblemError."""
    role = turn_role(turn)
    if any(not is_null(turn.get(key)) for key in _TOOL_KEYS):
        raise RowProblemError(f"a turn that calls a tool: {turn}", "unknown_schema")
    content = inline_sources(first_nonempty_value(turn, "content", "value", "text"))
    texts, images, thoughts, kinds = [], [], [*_beside_content(turn)], []
    for part in [content] if isinstance(content, str) else to_list(content):
        kind, value = _read_part(part, content)
        kinds += [kind] if kind == "image" or value.strip() else []
        if kind == "image":
            images += [value] if value is not None else []
            texts.append(PLACEHOLDER)
        else:
            (thoughts if kind == "thinking" else texts).append(value)
    if any(_INDEXED.fullmatch(one) for one in texts) and PLACEHOLDER in "".join(texts):
        raise RowProblemError(f"parts that say which picture is there, and {PLACEHOLDER}: {content}", "image_count")
    _refuse_text_between(kinds, content)
    text, own = "".join(texts), to_list(first_nonempty_value(turn, "images", "image"))
    if own:
        refuse_other_pictures(own, to_list(turn.get("image")), "beside the images of a turn")
    if own and images:
        refuse_other_pictures(images, own, "beside those in the parts of a turn")
    elif own:
        images = own
        text = text if PLACEHOLDER in text else PLACEHOLDER * len(own) + text
    if thoughts and role != "assistant":
        raise RowProblemError(f"thinking in a turn of {role}: {thoughts[0]}", "unknown_schema")
    reasoning, mark = "\n\n".join(filter(None, thoughts)) or None, find_untrained_mark(turn)
    unread, pictures = _find_unread(turn, to_list(content))
    if not thoughts and not is_null(turn.get(DETAIL_KEY)):  # encrypted
        unread[DETAIL_KEY] = turn[DETAIL_KEY]
    return Message(role, text, images, reasoning, mark, unread, tuple(pictures))


def _refuse_text_between(kinds: list[str], content: Any) -> None:
    """Raise RowProblemError for a text before thinking that another text follows: both would be joined to the answer.

    `kinds` are those of the parts that are not empty.
    """
    last = max((k for k, kind in enumerate(kinds) if kind == "thinking"), default=0)
    if "text" in kinds[:last] and "text" in kinds[last:]:
        name = "text_between" if "thinking" in kinds[: kinds.index("text")] else "text_before_think"
        raise RowProblemError(f"a text before a part of thinking, and another one after it: {content}", name)


def _find_unread(turn: Mapping[str, Any], parts: list[Any]) -> tuple[dict[str, Any], list[UnreadPicture]]:
    """The texts and the pictures under keys of a turn and of its parts that are not read."""
    others = [(key, value) for key, value in turn.items() if key not in _READ_KEYS]
    for part in parts:
        if isinstance(part, Mapping) and (kind := _kind_of_part(part)) not in THINK_PARTS:  # these hold a signature
            read = _TEXT_KEYS if kind in _TEXT_PARTS or "index" in part else _IMAGE_KEYS
            read = read if "text" in part else read | {"value"}
            others += [(f"part.{key}", value) for key, value in part.items() if key not in read]
    unread: dict[str, Any] = {key: turn[key] for key in TRAIN_KEYS if _is_other_weight(turn.get(key))}
    pictures: list[UnreadPicture] = []
    for name, value in others:
        found = find_turn_pictures(name, value)
        pictures += found
        # Beside other pictures, one under such a name is only reported.
        is_spare = isinstance(value, str) and any(one.is_file and not one.is_named for one in found)
        if is_spare or holds_words(value):
            unread[name] = value
    return unread, pictures


def read_system_cell(cell: Any, key: str) -> str | None:
    """The system text in a column: a text, a message, several of them, or parts of one; None for any other value.

    Raises RowProblemError for a message that is not of the system, for a picture, and for several plain texts.
    """
    if isinstance(cell, str):
        return _drop_missing(cell)
    entries = [cell] if isinstance(cell, Mapping) else to_list(cell)
    if all(isinstance(one, str) for one in entries):
        if len(entries) > 1:
            raise RowProblemError(f"{key} is a list of {len(entries)} texts; expected one: {cell}", "not_text")
        return _drop_missing(str(entries[0])) if entries else None
    if not any(isinstance(one, Mapping) and not _SPOKEN_KEYS.isdisjoint(one) for one in entries):
        return None
    are_messages = all(isinstance(one, Mapping) and not _MESSAGE_KEYS.isdisjoint(one) for one in entries)
    turns = [{"role": "system", **one} for one in entries] if are_messages else [{"role": "system", "content": entries}]
    messages = [read_message(turn if "from" not in turn else {**turn, "role": turn["from"]}) for turn in turns]
    if other := next((one for one in messages if one.role != "system" or one.images or one.unread_pictures), None):
        raise RowProblemError(f"{key} has a turn of {other.role} or a picture: {cell}", "unknown_schema")
    return _join_texts(messages)


def _join_texts(messages: Iterable[Message]) -> str | None:
    return "\n\n".join(text for one in messages if (text := _drop_missing(one.text))) or None


def _drop_missing(text: str) -> str:
    return "" if is_missing(text) else text.strip()


def find_untrained_mark(turn: Mapping[str, Any]) -> str | None:
    """What says, in a turn, that it is not to be trained on, such as `weight: 0`; None without."""
    return next((f"{key}: {turn[key]}" for key in TRAIN_KEYS if turn.get(key) in (False, 0)), None)


def _is_other_weight(value: Any) -> bool:
    """Whether a turn has a weight that is neither 0 nor 1."""
    return isinstance(value, (int, float)) and not is_null(value) and value not in (0, 1)


def turn_role(turn: Any) -> str:
    """`user`, `assistant` or `system`. Raises RowProblemError for any other role."""
    role = role_of(turn)
    if role is None:
        raise RowProblemError(f"a turn without a role among {', '.join(ROLES)}: {turn}", "unknown_schema")
    return role


def role_of(turn: Any) -> str | None:
    """`user`, `assistant` or `system`; None for what is not a turn of one of them."""
    role = first_nonempty_value(turn, "role", "from") if isinstance(turn, Mapping) else None
    return ROLES.get(str(role).strip().lower())


def _beside_content(turn: Mapping[str, Any]) -> Iterable[str]:
    """The reasoning under keys of its own; two keys with the same text are one."""
    names = TURN_THINK_KEYS
    if turn_role(turn) != "assistant" or "think>" in str(turn.get("content")):
        names = TURN_THINK_KEYS[:OWN_TURN_KEYS]  # the others may be about the turn
    for keys in (names, (DETAIL_KEY,)):
        found = (read_reasoning(turn.get(key), key) for key in keys if key in turn)
        if texts := dict.fromkeys(text for text in found if text):
            return texts
    return ()


def is_part(value: Any) -> bool:
    """Whether an object is a part of a content."""
    if not isinstance(value, Mapping) or "role" in value:
        return False
    kind = _kind_of_part(value)
    return kind in (*_TEXT_PARTS, *_IMAGE_PARTS, *THINK_PARTS, *MEDIA_PARTS) and ("type" in value or len(value) == 1)


def _kind_of_part(part: Mapping[str, Any]) -> Any:
    if (kind := part.get("type")) is not None:
        return kind
    return next((name for name in ("text", "image", "image_url") if not is_null(part.get(name))), None)


def _read_part(part: Any, content: Any) -> tuple[str, Any]:
    """(`text`, `image` or `thinking`; its text or the picture) of a part of a turn's content."""
    if isinstance(part, str):
        return "text", part
    kind = _kind_of_part(part) if isinstance(part, Mapping) else None
    if kind in MEDIA_PARTS:
        raise RowProblemError(f"a part of type {kind}: {content}", "unread_media")
    if kind in _IMAGE_PARTS and isinstance(part.get("index"), int) and set(part) <= {"type", "index", "text"}:
        return "text", f"<image_{part['index'] + 1}>"  # which of the row's pictures is here
    if kind in _IMAGE_PARTS:
        return "image", first_nonempty_value(part, *_IMAGE_SOURCES)
    if kind in THINK_PARTS:
        return "thinking", read_reasoning(first_nonempty_value(part, *_THINK_SOURCES), kind)
    if kind in _TEXT_PARTS:
        text = to_text(part.get("text", part.get("value")), "text")
        return ("thinking", text.strip()) if part.get("thought") is True else ("text", text)
    found = f"content that is neither text nor parts of type text and image: {content}"
    raise RowProblemError(found, "unknown_schema")
