"""Pictures, video and sound that a turn, or a part of its content, has under keys that nothing reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from balanced_thinking.data.keys import MEDIA_KEYS
from balanced_thinking.data.picture_files import PICTURE_STARTS
from balanced_thinking.data.unread import (
    decode_base64,
    has_picture_name,
    in_snake_case,
    is_media_file,
    is_no_picture,
    is_picture,
    is_same_picture,
    shorten,
)
from balanced_thinking.data.values import RowProblemError, first_nonempty_value, is_null

_MEDIA_NAME = re.compile(
    r"(?:.*_)?(?:video|audio)s?(?:_(?:path|file|filename|file_name|name|url|uri|src|data|bytes)s?)?"
)
_ATTACHED_NAME = re.compile(r"(?:(?:.*_)?attachments?|medias?)(?:_(?:path|url|uri)s?)?")  # not `social_media`
_FILES_NAME = re.compile(r"(?:.*_)?(?:attachment|media|file)s?(?:_(?:path|url|uri|name)s?)?|path|url")
# What says of which kind a file is: `{"type": "image", ...}`, `{"mimeType": "image/png", ...}`.
_KIND_KEYS = ("type", "mime_type", "mimeType", "media_type", "mediaType", "content_type", "contentType")
_KIND = re.compile(r"(?:input_)?(image|video|audio)(?:_url|_path|_file|/[\w.+-]+)?", re.IGNORECASE)
_SOURCES = ("bytes", "path", "url", "image_url", "image", "uri", "src", "data", "file", "file_id", "id", "name")


class UnreadPicture(NamedTuple):
    """A picture under a key that is not read.

    is_file: it is or leads to one; otherwise only its key says so. is_named: its key is one for pictures.
    """

    name: str
    value: Any
    is_file: bool
    is_named: bool


def find_turn_pictures(name: str, value: Any) -> list[UnreadPicture]:
    """The pictures in a value of a turn that is not read. Raises RowProblemError for video and sound."""
    key = in_snake_case(name.rpartition(".")[2])
    found = list(_find_pictures(name, key, value))
    if not found and _ATTACHED_NAME.fullmatch(key) and any(map(_may_be_file, _leaves(value))):
        return [UnreadPicture(name, value, is_file=False, is_named=True)]  # of a kind that nothing says
    return found


def _has_name(name: str) -> bool:
    """Whether one of the keys that lead to a value is for pictures."""
    keys = [in_snake_case(key) for key in name.split(".")]
    return any(has_picture_name(key) or _FILES_NAME.fullmatch(key) for key in keys)


def _find_pictures(name: str, key: str, value: Any) -> Iterator[UnreadPicture]:
    if isinstance(value, Mapping):
        if not all(map(is_null, _leaves(value))):  # tables fill objects up with nulls
            yield from _find_in_object(name, key, value)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _find_pictures(name, key, one)
    elif _is_media(key, value):
        raise RowProblemError(f"turn.{name}: {shorten(value)}", "unread_media")
    elif isinstance(value, (bytes, bytearray)):
        if has_picture_name(key) or value[:8].startswith(PICTURE_STARTS):
            yield UnreadPicture(name, value, is_file=True, is_named=_has_name(name))
    elif is_picture(value, key):
        yield UnreadPicture(name, value, is_file=is_picture(value, ""), is_named=_has_name(name))


def _find_in_object(name: str, key: str, value: Mapping[str, Any]) -> Iterator[UnreadPicture]:
    kinds = (_KIND.fullmatch(str(value.get(one))) for one in _KIND_KEYS)
    kind = next((found[1].lower() for found in kinds if found), None)
    if kind in ("video", "audio") or (kind is None and _MEDIA_NAME.fullmatch(key)):
        raise RowProblemError(f"turn.{name}: {shorten(value)}", "unread_media")
    source = first_nonempty_value(value, *_SOURCES)
    if kind == "image" or (source is not None and has_picture_name(key)):
        if isinstance(source, Mapping):  # as in `{"type": "image_url", "image_url": {"url": ...}}`
            source = first_nonempty_value(source, *_SOURCES)
        yield UnreadPicture(name, value if source is None else source, is_file=True, is_named=True)
        return
    for inner, one in value.items():
        yield from _find_pictures(f"{name}.{inner}", in_snake_case(str(inner)), one)


def _is_media(key: str, value: Any) -> bool:
    if isinstance(value, str):
        named = _MEDIA_NAME.fullmatch(key) is not None and not re.search(r"\s", value) and not is_no_picture(value)
        return bool(value) and (named or is_media_file(value))
    if isinstance(value, bytes | bytearray):
        return _MEDIA_NAME.fullmatch(key) is not None
    return key in MEDIA_KEYS and not is_null(value) and value is not False


def _leaves(value: Any) -> Iterator[Any]:
    """The values inside of lists and objects; of any other value itself."""
    if isinstance(value, (Mapping, list, tuple)):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(one)
    else:
        yield value


def _may_be_file(value: Any) -> bool:
    """Whether a value may be a file or its name. A number or a flag says how many files there are."""
    if isinstance(value, str):
        return not (is_null(value) or is_no_picture(value))
    return isinstance(value, (bytes, bytearray))


def inline_sources(content: Any) -> Any:
    """A content whose parts of Anthropic's form, with a picture under `source`, have it under `image`."""
    return [*map(_inline_source, content)] if isinstance(content, list) else content


def _inline_source(part: Any) -> Any:
    source = part.get("source") if isinstance(part, Mapping) and part.get("type") == "image" else None
    if not isinstance(source, Mapping):
        return part
    data, url = (source.get(name) if isinstance(source.get(name), str) else None for name in ("data", "url"))
    if not (data or url):
        return part
    picture = {"bytes": decode_base64(data)} if data else {"url": url}
    return {key: value for key, value in part.items() if key != "source"} | {"image": picture}


def refuse_unread_pictures(unread: Sequence[UnreadPicture], images: Sequence[Any]) -> None:
    """Raise RowProblemError for a picture under an unread key of a turn that is not one of the row's pictures.

    Beside pictures of the row, one under a key that is not for pictures, such as `mask`, may be left out.
    """
    for one in unread:
        # The part of an image with a `source` is a place, for one of the row's pictures.
        shown = one.name == "part.source" or any(is_same_picture(one.value, image) for image in images)
        if not images or (one.is_file and one.is_named and not shown):
            raise RowProblemError(
                f"turn.{one.name}: {shorten(one.value)} (put a picture under image or images of the turn, or into a "
                "part of its own of type image)",
                "unread_image",
            )
