"""Rows in any of TRL's forms -> messages as chat templates take them, with one text for the assistant's turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trl.data_utils import prepare_multimodal_messages

from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.data.keys import TURN_THINK_KEYS
from balanced_thinking.data.reasoning import read_reasoning
from balanced_thinking.data.turns import MEDIA_PARTS, THINK_PARTS, find_untrained_mark
from balanced_thinking.data.values import RowProblemError
from balanced_thinking.segments import ReasoningFormat, parse, render
from balanced_thinking.segments.formats import render_thinking

_NO_TOOLS: tuple[Any, ...] = (None, [], "", "[]", "null")


def to_prompt_completion(row: Mapping[str, Any]) -> dict[str, Any]:
    """TRL's columns, in any of its forms, as `prompt`, `completion`, `images` and `id`.

    The last of `messages`, the assistant's, is the completion: only that is trained on.
    """
    images = row_images(row)
    if row.get("messages") is not None:
        prompt, completion = row["messages"][:-1], row["messages"][-1:]
        if not prompt or completion[0]["role"] != "assistant":
            raise RowError(
                f"row {row.get('id', '?')}: `messages` must end with the assistant's message, after at least one other"
            )
    elif row.get("prompt") is not None and row.get("completion") is not None:
        prompt, completion = row["prompt"], row["completion"]
    else:
        raise RowError(f"a row has the columns {sorted(row)}; expected `prompt` and `completion`, or `messages`")
    if not isinstance(completion, str):
        _check_reply(row, completion)
    return {"id": str(row.get("id", "?")), "prompt": prompt, "completion": completion, "images": images}


def _check_reply(row: Mapping[str, Any], completion: Sequence[Mapping[str, Any]]) -> None:
    """Raises RowError for a completion that is not one message of the assistant, to be trained on, without tools."""
    name, roles = f"row {row.get('id', '?')}", [str(message.get("role")) for message in completion]
    if roles != ["assistant"]:
        raise RowError(
            f"{name}: `completion` has the turns {', '.join(roles) or 'none'}; expected one, of the assistant. "
            "All of it would be trained on: put earlier turns into `prompt`"
        )
    if row.get("tools") not in _NO_TOOLS or completion[0].get("tool_calls"):
        raise RowError(f"{name} has tools, which are not written into its prompt; leave the row out")
    if (mark := find_untrained_mark(completion[0])) is not None:
        raise RowError(f"{name}: its reply is marked {mark}, so it is not to be trained on", "not_for_training")


def row_images(row: Mapping[str, Any]) -> list[Any]:
    """The row's pictures. Concatenated data sets hold null in columns that one of them lacks."""
    return list(row.get("images") or []) or [image for image in (row.get("image"),) if image is not None]


def template_messages(messages: Sequence[Mapping[str, Any]], images: int | None, row_id: str) -> list[dict[str, Any]]:
    """The messages as a chat template takes them, without null values, which columns of a table bring.

    For a processor of pictures every content becomes a list of parts; `images` pictures without a place of their own
    come before the first text of the user. For a tokenizer (`images` None) content is a text.

    Raises RowError where the places of pictures differ in number from the pictures.
    """
    plain = [_without_nulls(message) for message in messages]
    _refuse_other_media(plain, row_id)
    if images is None:
        return [_with_text_content(message, row_id) for message in plain]
    contents = [content for message in plain if isinstance(content := message.get("content"), list | tuple)]
    places = sum(part.get("type") == "image" for content in contents for part in content)
    if places not in (0, images):
        raise RowError(
            f"sample {row_id} has {places} places for pictures in its messages and {images} pictures; expected a "
            "picture for each place, in the column `images`",
            "image_count",
        )
    try:
        return prepare_multimodal_messages(plain, images=["image"] * images)
    except (ValueError, KeyError) as error:
        kind = "image_count" if "number of images" in str(error).lower() else "template_refuses"
        raise RowError(f"sample {row_id}: {error}", kind) from error


def _refuse_other_media(messages: Sequence[Mapping[str, Any]], row_id: str) -> None:
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list | tuple) else ():
            if (kind := part.get("type")) in MEDIA_PARTS:
                raise RowError(
                    f"sample {row_id} has a part of type {kind}; only text and pictures are read", "unread_media"
                )


def merge_reasoning(message: Mapping[str, Any], format: ReasoningFormat, row_id: str) -> dict[str, Any]:
    """The assistant's message with reasoning that is beside its content written into the content.

    Reasoning is beside it under a key of its own, or as a part of the content. Raises RowError if the content has
    reasoning as well, or the format has no place for it.
    """
    reasoning, where = _reasoning_beside_content(message, row_id)
    content = _content_text(message.get("content"))
    if not reasoning:
        return {"role": message["role"], "content": content}
    parsed = parse(content, format)
    if parsed.think == reasoning and parsed.answer is not None:  # given twice
        return {"role": message["role"], "content": content}
    if parsed.think and parsed.answer is not None and format.think_required:
        raise RowError(
            f"sample {row_id} has reasoning under {where} ({_shorten(reasoning)}) and other reasoning in its content "
            f"({_shorten(parsed.think)}); expected it in one place",
            "reasoning_twice",
        )
    if parsed.answer is None:
        answer, merged = content.strip(), render(reasoning, content.strip(), format)
    else:
        answer, merged = parsed.answer, render_thinking(reasoning, format) + content.lstrip()
    found = parse(merged, format)
    if found.think != reasoning or found.answer != answer:
        raise RowError(
            f"sample {row_id}: the reasoning under {where} has no place in reasoning_format {format.name!r}: with it "
            f"the completion is {_shorten(merged)}; choose a reasoning_format with tags for it",
            "reasoning_twice" if found.think else "no_think",
        )
    return {"role": message["role"], "content": merged}


def separate_reasoning(message: Mapping[str, Any], format: ReasoningFormat) -> dict[str, Any] | None:
    """The assistant's message with its reasoning under the key that chat templates read; None where it has none."""
    content = message["content"]
    parsed = parse(content, format)
    if parsed.think is None or parsed.answer is None:
        return None
    answer = content[parsed.spans[-1].start :].strip()
    return {"role": message["role"], TURN_THINK_KEYS[0]: parsed.think, "content": answer}


def _reasoning_beside_content(message: Mapping[str, Any], row_id: str) -> tuple[str, str]:
    """The reasoning, and the name it is under; ("", "") if there is none. Raises RowError for one that is no text."""
    for key in TURN_THINK_KEYS:
        try:
            if text := read_reasoning(message.get(key), key):
                return text, key
        except RowProblemError as error:
            raise RowError(f"sample {row_id}: {error}; expected a text", error.problems[0]) from error
    content = message.get("content")
    if isinstance(content, str) or content is None:
        return "", ""
    parts = [part for part in content if part.get("type") in THINK_PARTS]
    texts = [next((part[key] for key in (*TURN_THINK_KEYS, "text") if part.get(key)), "") for part in parts]
    return "\n\n".join(text.strip() for text in texts if text.strip()), "a part of its content"


def _without_nulls(message: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in message.items() if value is not None}
    if isinstance(content := found.get("content"), list | tuple):
        found["content"] = [{key: value for key, value in part.items() if value is not None} for part in content]
    return found


def _with_text_content(message: dict[str, Any], row_id: str) -> dict[str, Any]:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    if any(part.get("type") == "image" for part in content):
        raise RowError(f"sample {row_id} has a picture in its text, but the model takes text only", "image_count")
    return message | {"content": _content_text(content)}


def _content_text(content: Any) -> str:
    """A content's text, without the parts that are reasoning or pictures."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.get("text") or "" for part in content if part.get("type") not in THINK_PARTS)


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
