"""Opening pictures: local files only, and an error that names the file."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps

from balanced_thinking.data.checks import UNREADABLE, RowError

_FIRST_SIDEWAYS = 5  # from this EXIF orientation on width and height are swapped


def open_image(reference: Any, *, convert: bool = True) -> Image.Image:
    """An RGB picture from a PIL image, a local path, or the {"bytes", "path"} that datasets store.

    Without `convert` a file is not decoded yet (`decode_rgb` does) and its `content_digest` says what is in it.

    Raises RowError, with the file's name, for anything that cannot be read.
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
        raise RowError(f"the image {reference!r} is an address: images must be local files, so download it first")
    if convert:
        return _decode_source(reference, str(reference))
    try:
        return _open_undecoded(Path(reference).read_bytes(), str(reference))
    except OSError as error:
        raise _unreadable_error(str(reference), error) from error


def decode_rgb(picture: Image.Image) -> Image.Image:
    """A picture that `open_image` may have left unread."""
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
    """In RGB, turned as the camera says, 16 bits a channel brought down to 8."""
    if _exif_orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # "I" is of 32 bits, whether it holds 8 or 16
        values = np.asarray(image).clip(0, 2**16 - 1)
        wide = image.mode != "I" or values.max() > 255
        image = Image.fromarray((values >> 8 if wide else values).astype(np.uint8))
    return image.convert("RGB")


def content_digest(image: Any) -> str:
    """SHA-256 of the file that a picture comes from, where it is a path or keeps its file's bytes or their digest, else
    of its pixels."""
    if isinstance(image, Path):
        return hashlib.sha256(image.read_bytes()).hexdigest()
    if (known := getattr(image, "content_digest", None)) is not None:
        return known
    encoded = getattr(image, "encoded", None)
    data = encoded if encoded is not None else f"{image.mode}{image.size}".encode() + image.tobytes()
    return hashlib.sha256(data).hexdigest()


def image_size(image: Any) -> tuple[int, int]:
    """Width and height in pixels of a path, a file or a PIL image as `open_image` gives them, without decoding a file;
    raises as Pillow does."""
    if not isinstance(image, Image.Image):
        with Image.open(image) as opened:
            return image_size(opened)
    return image.size[::-1] if _exif_orientation(image) >= _FIRST_SIDEWAYS else image.size


def _exif_orientation(image: Image.Image) -> int:
    """EXIF's, from 1 (upright) to 8; of a PNG only where it stands before the pixels: they are not decoded."""
    told = "exif" in image.info if image.format == "PNG" else image.format != "TIFF"  # Pillow turns a TIFF itself
    value = image.getexif().get(ExifTags.Base.Orientation) if told else None
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _unreadable_error(name: str, error: Exception) -> RowError:
    return RowError(
        f"the image {name} cannot be read ({error}); expected a whole picture file that Pillow opens: mend the "
        "file, or go on without its row with verify_images and --on-bad-row drop"
    )
