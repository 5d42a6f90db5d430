"""What a row has and nothing reads: pictures, video and sound, without which its question would be another one."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from balanced_thinking.data.example import DESCRIBED_PICTURE, Example
from balanced_thinking.data.keys import MEDIA_KEYS
from balanced_thinking.data.permissions import current_permissions
from balanced_thinking.data.picture_files import MEDIA_SUFFIXES, PICTURE_SUFFIXES, UNREAD_PICTURE_SUFFIXES, UNREADABLE
from balanced_thinking.data.row_paths import make_row_path
from balanced_thinking.data.tables import open_cell_image
from balanced_thinking.data.values import RowProblemError, first_nonempty_value, is_null

_PICTURE_FILE = re.compile(rf".+\.(?:{'|'.join((*PICTURE_SUFFIXES, *UNREAD_PICTURE_SUFFIXES))})", re.IGNORECASE)
_MEDIA_FILE = re.compile(rf".+\.(?:{'|'.join(MEDIA_SUFFIXES)})", re.IGNORECASE)
_PICTURE_KEY = re.compile(
    r"(?:.*_)?(?:image|img|picture|photo|pic|figure|screenshot)s?"
    r"(?:_(?:path|file|filename|file_name|name|url|uri|src|id|b64|base64|bytes|data|string|\d+)s?)?"
)
_PATH_KEY = re.compile(r"(?:.*[_ ])?(?:path|file|filename|name|names|url|uri|src|id)", re.IGNORECASE)
_UNFILLED = re.compile(r"<(?:ref-object|bbox)>")
_NO_PICTURE = {"none", "null", "nan", "n/a", "na", "no", "false", "-"}
_REMOTE = re.compile(r"(?:https?|ftp|s3|gs|hf):", re.IGNORECASE)
_DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)
# How the files of PNG, JPEG, GIF, WebP, BMP and TIFF begin in base64.
_BASE64_START = re.compile(r"(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR|Qk[0-3]|SUkqA|TU0AK)[A-Za-z0-9+/\s]*+={0,2}\s*")
_LEAST_BASE64, _MOST_BASE64 = 64, 2**27  # characters; the upper limit is 96 MiB of picture


def refuse_unread_media(record: Mapping[str, Any], others: Mapping[str, Any], has_images: bool) -> None:
    """Raise RowProblemError for video and sound, and in a row without pictures for a picture that nothing reads.

    `others` are the values of `record` that are not read.
    """
    for key in MEDIA_KEYS:
        if not is_null(record.get(key)) and record[key] is not False:
            raise RowProblemError(f"{key}: {shorten(record[key])}", "unread_media")
    if not has_images:
        _refuse_unread(others, "")


def refuse_unfilled_places(record: Mapping[str, Any]) -> None:
    """Raise RowProblemError for ms-swift's rows about places in a picture, whose texts take them from `objects`."""
    objects = record.get("objects")
    if not isinstance(objects, Mapping) or not (objects.get("ref") or objects.get("bbox")):
        return
    for text in _find_texts([value for key, value in record.items() if key != "objects"]):
        if found := _UNFILLED.search(text):
            raise RowProblemError(f"{found[0]} is to be filled in from objects: {shorten(objects)}", "unfilled_place")


def _find_texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple, Mapping)):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _find_texts(inner)


def _refuse_unread(value: Any, name: str) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _refuse_unread(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _refuse_unread(inner, name)
    elif isinstance(value, str) and is_media_file(value):
        raise RowProblemError(f"{name}: {value}", "unread_media")
    elif is_picture(value, name):
        raise RowProblemError(f"{name}: {shorten(value)}", "unread_image")


def is_picture(value: Any, name: str) -> bool:
    """Whether a value is a picture or leads to one, by itself or by the name that it has."""
    named = has_picture_name(name)
    if isinstance(value, str):
        if _PICTURE_FILE.fullmatch(value.partition("?")[0]) or is_base64_picture(value):
            return True
        return named and bool(value) and not re.search(r"\s", value) and not is_no_picture(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return named and in_snake_case(name).endswith("id")
    return isinstance(value, (Image.Image, Path)) or (isinstance(value, bytes) and named)


def has_picture_name(name: str) -> bool:
    """Whether a name is that of a picture, such as `image_path`; one inside an object is not."""
    return "." not in name and _PICTURE_KEY.fullmatch(in_snake_case(name)) is not None


def is_no_picture(value: str) -> bool:
    """Whether a text says that there is no picture, such as `none`."""
    return value.casefold() in _NO_PICTURE


def is_media_file(value: str) -> bool:
    """Whether a text names a file of video or sound."""
    return _MEDIA_FILE.fullmatch(value.partition("?")[0]) is not None


def describe_picture(cell: Any) -> str:
    """What stands in `meta` for a picture's bytes."""
    return f"{DESCRIBED_PICTURE}{len(cell['bytes'] if isinstance(cell, Mapping) else cell)} bytes"


def find_unread_pictures(example: Example) -> list[str]:
    """The names in `meta` of pictures that nothing reads, such as a `mask` beside the row's own picture.

    A path under `file_name`, `image_path` and the like is that of the row's picture.
    """
    shown = {image.name for image in example.images if isinstance(image, Path)}
    return [
        key
        for key, value in example.meta.items()
        if not _PATH_KEY.fullmatch(key) and any(_is_other_picture(text, shown) for text in _find_texts(value))
    ]


def _is_other_picture(text: str, shown: set[str]) -> bool:
    if text.startswith(DESCRIBED_PICTURE) or is_base64_picture(text):
        return True
    return " " not in text and bool(_PICTURE_FILE.fullmatch(text)) and PurePosixPath(text).name not in shown


def is_picture_cell(value: Any) -> bool:
    """Whether a value is a picture, or leads to one, whatever its name is."""
    if isinstance(value, Mapping):
        return not all(one in (None, "") for one in value.values())
    return isinstance(value, bytes) or is_picture(value, "")


def refuse_other_pictures(found: Sequence[Any], beside: Sequence[Any], where: str) -> None:
    """Raise RowProblemError for a picture `beside` those that are read that is not one of them."""
    if other := next((one for one in beside if not any(is_same_picture(one, read) for read in found)), None):
        raise RowProblemError(f"a picture {where}, and not one of them: {shorten(other)}", "unread_image")


def is_same_picture(one: Any, other: Any) -> bool:
    """Whether two cells of a row may be one picture. A path beside bytes is: sets hold both of one picture."""
    data, paths = zip(*map(_split_cell, (one, other)), strict=True)
    if None not in data:
        return bool(data[0] == data[1])
    if None in paths:
        return True
    parts = sorted((PurePosixPath(os.path.normpath(path)).parts for path in paths), key=len)
    return parts[1][-len(parts[0]) :] == parts[0]


def _split_cell(cell: Any) -> tuple[Any, str | None]:
    """A cell's bytes or open picture, and its path; None for what it lacks."""
    if isinstance(cell, Mapping):
        place = cell.get("path") or cell.get("url") or None
        return cell.get("bytes"), None if place is None else str(place)
    return (None, str(cell)) if isinstance(cell, (str, Path)) else (cell, None)


@lru_cache(maxsize=1024)  # the same names come in every row
def in_snake_case(name: str) -> str:
    """`imageUrl` and `image url` as `image_url`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[ -]", "_", name).lower()


def shorten(value: Any) -> str:
    """A value as a message shows it."""
    return str(value)[:200]


def is_base64_picture(text: str) -> bool:
    """Whether a text is a picture's file in base64, with or without `data:image/...;base64,` before it."""
    if _DATA_URI.match(text):
        return True
    return len(text) >= _LEAST_BASE64 and _BASE64_START.fullmatch(text) is not None


def resolve_image(entry: Any, root: Path) -> Path | Image.Image:
    """An entry of a row as an image of an Example: a path at `root`, or a picture that the row holds itself.

    Takes a path, an object with `path`, `bytes` or `url`, base64, bytes, or a PIL image. Raises RowProblemError.
    """
    if isinstance(entry, Mapping):
        entry = first_nonempty_value(entry, "bytes", "path", "url", "image", "image_url")
    if isinstance(entry, Image.Image):
        return entry
    if isinstance(entry, bytes):
        return _open_bytes(entry)
    if isinstance(entry, Path):
        return make_row_path(root, entry)
    if not isinstance(entry, str) or not entry:
        raise RowProblemError(f"an image that is not a path: {shorten(repr(entry))}", "broken_image")
    if is_base64_picture(entry):
        return _open_bytes(decode_base64(entry))
    if _REMOTE.match(entry):
        if not current_permissions().urls:
            raise RowProblemError(entry, "remote_image")
        from balanced_thinking.data.remote import fetch_picture  # what asks a network is loaded only for this

        return fetch_picture(entry)
    return make_row_path(root, entry.removeprefix("file://"))


def decode_base64(text: str) -> bytes:
    """The bytes that a text is, with or without `data:...;base64,` before it. Raises RowProblemError."""
    if len(text) > _MOST_BASE64:
        raise RowProblemError(f"base64 of {len(text)} characters; at most {_MOST_BASE64} are read", "broken_image")
    try:
        return base64.b64decode(re.sub(r"\s", "", text.partition(",")[2] or text), validate=True)
    except ValueError as error:  # binascii.Error, or characters beyond ASCII
        raise RowProblemError(f"base64 that cannot be decoded ({error}): {shorten(text)}", "broken_image") from error


def _open_bytes(data: bytes) -> Path | Image.Image:
    try:
        opened = open_cell_image({"bytes": data})
    except UNREADABLE as error:
        raise RowProblemError(f"{len(data)} bytes that are no picture ({error})", "broken_image") from error
    assert opened is not None
    return opened
