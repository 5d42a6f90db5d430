"""Open pictures from local files. Errors name the file."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps

from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.data.checks import UNREADABLE

_FIRST_SIDEWAYS = 5  # from this EXIF orientation on, width and height are swapped


def open_image(reference: Any, *, convert: bool = True) -> Image.Image:
    """An RGB picture from a PIL image, a local path, or the {"bytes", "path"} that `datasets` stores.

    With `convert=False` a file is opened but not decoded; `decode_rgb` does that later. Its attribute `content_digest`
    is the SHA-256 of the file. Raises RowError with the file's name for anything that cannot be read.
    """
    if isinstance(reference, Image.Image):
        return _decode_source(reference, "a PIL image")
    if isinstance(reference, Mapping):
        if (data := reference.get("bytes")) is not None:
            name = str(reference.get("path") or f"of {len(data)} bytes")
            return _decode_source(io.BytesIO(data), name) if convert else _open_undecoded(data, name)
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


def decode_rgb(picture: Image.Image) -> Image.Image:
    """Decode a picture that `open_image` may have left undecoded."""
    return _decode_source(picture, getattr(picture, "content_name", "a PIL image"))


def _open_undecoded(data: bytes, name: str) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(data))
    except UNREADABLE as error:
        raise _unreadable_error(name, error) from error
    picture.content_digest, picture.content_name = hashlib.sha256(data).hexdigest(), name  # type: ignore[attr-defined]
    return picture


def _decode_source(source: Any, name: str) -> Image.Image:
    try:
        if isinstance(source, Image.Image):
            return _to_upright_rgb(source)
        with Image.open(source) as image:
            return _to_upright_rgb(image)
    except UNREADABLE as error:
        raise _unreadable_error(name, error) from error


def _to_upright_rgb(image: Image.Image) -> Image.Image:
    """Turn as EXIF says, reduce 16 bits a channel to 8, convert to RGB."""
    if _exif_orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # mode "I" has 32 bits, for values of 8 or of 16 bits
        values = np.asarray(image).clip(0, 2**16 - 1)
        wide = image.mode != "I" or values.max() > 255
        image = Image.fromarray((values >> 8 if wide else values).astype(np.uint8))
    return image.convert("RGB")


def content_digest(image: Any) -> str:
    """SHA-256 of a picture's file, or of its pixels if its file is not known.

    The file is known for a path and for a picture that keeps its file's bytes or their digest.
    """
    if isinstance(image, Path):
        return hashlib.sha256(image.read_bytes()).hexdigest()
    if (known := getattr(image, "content_digest", None)) is not None:
        return known
    encoded = getattr(image, "encoded", None)
    data = encoded if encoded is not None else f"{image.mode}{image.size}".encode() + image.tobytes()
    return hashlib.sha256(data).hexdigest()


def image_size(image: Any) -> tuple[int, int]:
    """(width, height) in pixels of a path, a file or a PIL image, upright as `open_image` gives it.

    A file is not decoded. Raises what Pillow raises.
    """
    if not isinstance(image, Image.Image):
        with Image.open(image) as opened:
            return image_size(opened)
    return image.size[::-1] if _exif_orientation(image) >= _FIRST_SIDEWAYS else image.size


def _exif_orientation(image: Image.Image) -> int:
    """From 1 (upright) to 8. A PNG's is found only before its pixels, because they are not decoded here."""
    # Pillow itself turns a TIFF.
    has_orientation = "exif" in image.info if image.format == "PNG" else image.format != "TIFF"
    value = image.getexif().get(ExifTags.Base.Orientation) if has_orientation else None
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _unreadable_error(name: str, error: Exception) -> RowError:
    return RowError(
        f"the image {name} cannot be read ({error}); expected a complete picture file that Pillow can open. Fix the "
        "file, or leave out its row with verify_images and --on-bad-row drop"
    )
