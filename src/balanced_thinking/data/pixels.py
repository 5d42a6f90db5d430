"""From whatever a picture file holds to upright RGB on white."""

from __future__ import annotations

import struct
import warnings
from typing import Any

from PIL import ExifTags, Image

# EXIF orientation -> how Pillow turns the picture upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FIRST_SIDEWAYS = 5  # from this orientation on, width and height are swapped
# A PNG states its transparent colour in the file's own depth. Pillow widens the pixels, but not that colour.
_GREY_FACTORS = {"L;2": 85, "L;4": 17}
_WIDE_RGB = "RGB;16B"
_WHITE = 255
_BAND_PIXELS = 2**22
# Where a PNG may have EXIF data: names in Pillow's `info`, and the chunks that they come from.
_EXIF_NAMES = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
_EXIF_CHUNKS = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
_CHUNK_HEAD = 8  # bytes: the chunk's length and its name
# What Pillow raises for EXIF data that are none; the picture itself is good then.
_BAD_EXIF = (SyntaxError, struct.error, ValueError, TypeError, KeyError, IndexError, OverflowError, EOFError)


def decode_upright_rgb(image: Image.Image) -> Image.Image:
    """Decode a picture, put what is transparent on white, reduce each channel to 8 bits, and turn it as EXIF says.

    Always a new picture of mode RGB, without metadata: it must not be turned again. Raises what Pillow raises.
    """
    stored = _stored_mode(image)
    image.load()  # a PNG may have its EXIF data behind the pixels, and Pillow turns a TIFF while it decodes it
    rgb = _flatten_to_rgb(image, stored)
    turn = _TURNS.get(_read_orientation(image))
    upright = rgb if turn is None else rgb.transpose(turn)
    upright.info = {}
    return upright


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) after `decode_upright_rgb`. Only a PNG with texts behind its pixels is decoded for it."""
    if image.format == "TIFF" or _is_plain_png(image):  # a TIFF's size is already that of the upright picture
        return image.size
    return image.size[::-1] if _read_orientation(image) >= _FIRST_SIDEWAYS else image.size


def _is_plain_png(image: Image.Image) -> bool:
    """Whether it is an undecoded PNG without EXIF data. Pillow would decode it to look behind its pixels."""
    tiles = getattr(image, "tile", None)
    if image.format != "PNG" or not tiles or any(name in image.info for name in _EXIF_NAMES):
        return False
    file: Any = image.fp  # type: ignore[attr-defined]
    before = file.tell()
    try:
        file.seek(tiles[0][2] - _CHUNK_HEAD)  # the first chunk of pixels
        while len(head := file.read(_CHUNK_HEAD)) == _CHUNK_HEAD and head[4:] not in (b"IEND", *_EXIF_CHUNKS):
            file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    finally:
        file.seek(before)
    return head[4:] not in _EXIF_CHUNKS


def _read_orientation(image: Image.Image) -> int:
    """From 1 (upright) to 8."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged data, which do not damage the picture
            value: Any = image.getexif().get(ExifTags.Base.Orientation)
    except _BAD_EXIF:
        return 1
    return value if isinstance(value, int) and 1 <= value <= len(_TURNS) + 1 else 1


def _stored_mode(image: Image.Image) -> str:
    """How a PNG that is not decoded yet stores its pixels, such as `L;2`; "" where that is not known."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if image.format == "PNG" and tiles else ""
    return arguments if isinstance(arguments, str) else ""


def _flatten_to_rgb(image: Image.Image, stored: str) -> Image.Image:
    if image.mode.startswith("I"):
        return _reduce_integers(image)
    if image.mode == "F":
        return _reduce_floats(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.width * image.height <= _BAND_PIXELS:
        return _put_on_white(_to_rgba(image, stored))
    # In bands: with all of it on white beside it, the largest picture would take a gigabyte.
    rgb, rows = Image.new("RGB", image.size), max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        rgb.paste(_put_on_white(_to_rgba(band, stored)), (0, top))
    return rgb


def _reduce_integers(image: Image.Image) -> Image.Image:
    """Mode `I;16` has 16 bits; mode `I` has 32, for values of 8 or of 16 bits."""
    import numpy as np  # late: data are checked without it

    values = np.asarray(image).clip(0, 2**16 - 1)
    wide = image.mode != "I" or values.max() > _WHITE
    grey = (values >> 8 if wide else values).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = _WHITE
    return Image.fromarray(grey).convert("RGB")


def _reduce_floats(image: Image.Image) -> Image.Image:
    """Values up to 1 are shares of white, values up to 255 grey levels, and larger ones levels of 16 bits."""
    import numpy as np  # late: data are checked without it

    values = np.nan_to_num(np.asarray(image), nan=0.0, posinf=0.0, neginf=0.0).clip(0, 2**16 - 1)
    most = float(values.max())
    factor = 255.0 if most <= 1 else 1.0 if most <= _WHITE else 1 / 256
    return Image.fromarray((values * factor).astype(np.uint8)).convert("RGB")


def _to_rgba(image: Image.Image, stored: str) -> Image.Image:
    if image.mode == "La":
        return image.convert("LA").convert("RGBA")  # Pillow has no direct way
    transparent = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(transparent, tuple):
        levels = tuple(level >> 8 for level in transparent) if stored == _WIDE_RGB else transparent
    elif image.mode in ("1", "L") and isinstance(transparent, int):
        levels = (transparent * _GREY_FACTORS.get(stored, 1),)
    else:
        return image.convert("RGBA")
    if max(levels) > _WHITE:  # no pixel has that colour
        return image.convert("RGB").convert("RGBA")
    known = image.copy()
    known.info["transparency"] = levels if image.mode == "RGB" else levels[0]
    return known.convert("RGBA")


def _put_on_white(picture: Image.Image) -> Image.Image:
    if picture.getchannel("A").getextrema()[0] == _WHITE:
        return picture.convert("RGB")  # opaque everywhere
    ground = Image.new("RGBA", picture.size, "white")
    ground.alpha_composite(picture)
    return ground.convert("RGB")
