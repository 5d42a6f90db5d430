"""Pictures of a run as small data URIs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image

from balanced_thinking.data.permissions import current_permissions
from balanced_thinking.data.picture_files import UNREADABLE
from balanced_thinking.html import data_uri

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


# A small file can decode to gigabytes. Larger pictures than this are not opened.
MAX_PIXELS = 50_000_000


THUMBNAIL = (300, 300)


# A larger PNG, such as a photograph, becomes a JPEG.
MAX_PNG_BYTES = 24_000


def is_outside(path: Path, root: Path) -> bool:
    """Whether a picture leads out of a folder. Predictions are data, so they could name any file of the machine."""
    try:
        return not path.resolve().is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError):  # a circle of links, an impossible name
        return True


def embed_image(path: Path, root: Path) -> str | None:
    """The picture as a data URI of at most THUMBNAIL pixels: PNG, or JPEG where a PNG would be large.

    None where the file is outside `root` and this is not allowed, is missing, or is not a picture.
    """
    try:
        if (is_outside(path, root) and not current_permissions().outside) or not path.is_file():  # a pipe would block
            return None
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                return None
            picture = image.convert("RGBA")
    except UNREADABLE:
        return None
    picture.thumbnail(THUMBNAIL)
    kind, data = "png", _encode_picture(picture, "PNG", optimize=True)
    if len(data) > MAX_PNG_BYTES:
        flat = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        kind, data = "jpeg", _encode_picture(flat.convert("RGB"), "JPEG", quality=80)
    return data_uri(data, kind)


def _encode_picture(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()
