"""Opening pictures: local files only, and an error that names the file."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from balanced_thinking.data.checks import UNREADABLE, RowError


def open_image(reference: Any, *, convert: bool = True) -> Image.Image:
    """An RGB picture from a PIL image, a local path, or the {"bytes", "path"} that datasets store.

    Without `convert` a file is not decoded yet (`as_rgb` does) and its `content_digest` says what is in it.

    Raises RowError, with the file's name, for anything that cannot be read.
    """
    if isinstance(reference, Image.Image):
        return _rgb(reference, "a PIL image")
    if isinstance(reference, Mapping):
        if (data := reference.get("bytes")) is not None:
            name = str(reference.get("path") or f"of {len(data)} bytes")
            return _rgb(io.BytesIO(data), name) if convert else _unread(data, name)
        reference = reference.get("path")
    if not isinstance(reference, (str, Path)):
        raise RowError(f"an image is {reference!r}; expected a path, a PIL image, or a mapping with `bytes` or `path`")
    if str(reference).startswith(("http://", "https://")):
        raise RowError(f"the image {reference!r} is an address: images must be local files, so download it first")
    if convert:
        return _rgb(reference, str(reference))
    try:
        return _unread(Path(reference).read_bytes(), str(reference))
    except OSError as error:
        raise _unreadable(str(reference), error) from error


def as_rgb(picture: Image.Image) -> Image.Image:
    """A picture that `open_image` may have left unread."""
    return _rgb(picture, getattr(picture, "content_name", "a PIL image"))


def _unread(data: bytes, name: str) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(data))
    except UNREADABLE as error:
        raise _unreadable(name, error) from error
    picture.content_digest, picture.content_name = hashlib.sha256(data).hexdigest(), name  # type: ignore[attr-defined]
    return picture


def _rgb(source: Any, name: str) -> Image.Image:
    try:
        if isinstance(source, Image.Image):
            return source.convert("RGB")
        with Image.open(source) as image:
            return image.convert("RGB")
    except UNREADABLE as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> RowError:
    return RowError(
        f"the image {name} cannot be read ({error}); expected a whole picture file that Pillow opens: mend the "
        "file, or go on without its row with verify_images and --on-bad-row drop"
    )
