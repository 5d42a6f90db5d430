"""Open pictures from local files. Errors name the file."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.data.picture_files import (
    SHOWN_FORMATS,
    UNREADABLE,
    check_picture_kind,
    check_pixel_count,
    open_picture_file,
)
from balanced_thinking.data.pixels import decode_upright_rgb, upright_size


def open_image(reference: Any, *, convert: bool = True) -> Image.Image:
    """An RGB picture from a PIL image, a local path, or the {"bytes", "path"} that `datasets` stores.

    With `convert=False` a file is opened but not decoded; `decode_rgb` does that later. Its attribute `content_digest`
    is the SHA-256 of the file. Raises RowError with the file's name for anything that cannot be read.
    """
    if isinstance(reference, Image.Image):
        return decode_rgb(reference)
    if isinstance(reference, Mapping):
        if (data := reference.get("bytes")) is not None:
            name = picture_name(reference)
            return _decode_source(data, name) if convert else _open_undecoded(data, name)
        reference = reference.get("path")
    if not isinstance(reference, (str, Path)):
        raise RowError(f"an image is {reference!r}; expected a path, a PIL image, or a mapping with `bytes` or `path`")
    if str(reference).startswith(("http://", "https://")):
        raise RowError(f"the image {reference!r} is a web address; expected a local file: download it first")
    if convert:
        return _decode_source(reference, str(reference))
    try:
        return _open_undecoded(Path(reference).read_bytes(), str(reference))
    except OSError as error:
        raise _unreadable_error(str(reference), error) from error


def picture_source(reference: Any) -> Any:
    """What a reference leads to, without reading it: a path, the bytes of a file as a stream, or a PIL image.

    Takes what `open_image` takes. Raises RowError for anything else.
    """
    if isinstance(reference, Mapping):
        if (data := reference.get("bytes")) is not None:
            return io.BytesIO(data)
        reference = reference.get("path")
    if isinstance(reference, (str, Path)):
        return Path(reference)
    if not isinstance(reference, Image.Image):
        raise RowError(f"an image is {reference!r}; expected a path, a PIL image, or a mapping with `bytes` or `path`")
    return reference


def picture_name(reference: Any) -> str:
    """What messages call a picture: its path, or its size in bytes."""
    if isinstance(reference, Mapping):
        known = reference.get("path")
        return str(known) if known else f"of {len(reference.get('bytes') or b'')} bytes"
    if isinstance(reference, Image.Image):
        name = getattr(reference, "content_name", None) or getattr(reference, "filename", None)
        return str(name) if name else "a PIL image"
    return str(reference)


def decode_rgb(picture: Image.Image) -> Image.Image:
    """Decode a picture that `open_image` may have left undecoded."""
    return _decode_source(picture, picture_name(picture))


def _open_undecoded(data: bytes, name: str) -> Image.Image:
    try:
        picture = open_picture_file(data)
    except UNREADABLE as error:
        raise _unreadable_error(name, error) from error
    picture.content_digest, picture.content_name = hashlib.sha256(data).hexdigest(), name
    return picture


def _decode_source(source: Any, name: str) -> Image.Image:
    try:
        if isinstance(source, Image.Image):
            check_picture_kind(source)
            check_pixel_count(source)
            return decode_upright_rgb(source)
        with open_picture_file(source) as image:
            return decode_upright_rgb(image)
    except UNREADABLE as error:
        raise _unreadable_error(name, error) from error


def content_digest(image: Any) -> str:
    """SHA-256 of a picture's file, or of its pixels if its file is not known.

    The file is known for a path and for a picture that keeps its file's bytes or their digest.
    """
    if isinstance(image, Path):
        return hashlib.sha256(image.read_bytes()).hexdigest()
    if (known := getattr(image, "content_digest", None)) is not None:
        return known
    if (encoded := getattr(image, "encoded", None)) is not None:
        return hashlib.sha256(encoded).hexdigest()
    pixels = open_image(image)  # its raw pixels would leave out a palette, transparency and the orientation
    return hashlib.sha256(f"{pixels.mode}{pixels.size}".encode() + pixels.tobytes()).hexdigest()


def image_size(image: Any) -> tuple[int, int]:
    """(width, height) in pixels of a path, a file or a PIL image, upright as `open_image` gives it.

    A file is not decoded. Raises what Pillow raises, and RefusedPictureError for a picture that is never decoded.
    """
    if isinstance(image, Image.Image):
        return upright_size(image)
    with open_picture_file(image) as opened:
        return upright_size(opened)


def _unreadable_error(name: str, error: Exception) -> RowError:
    missing = isinstance(error, FileNotFoundError)
    return RowError(
        f"the image {name} cannot be read ({error}); expected a complete picture file, {SHOWN_FORMATS}. Fix the file, "
        "or leave out its row with verify_images and --on-bad-row drop",
        problem="missing_image" if missing else "broken_image",
    )
