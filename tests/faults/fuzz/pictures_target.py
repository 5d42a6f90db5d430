"""Files of pictures: small real ones of every kind that is decoded, with their headers and bodies changed.

An input is one byte, of which the lowest bit says whether the checksums of a PNG are made right again, then the file.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from contextlib import suppress
from functools import cache

from PIL import Image

from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.data.checks import find_picture_problem
from balanced_thinking.data.images import image_size, open_image
from balanced_thinking.data.picture_files import PICTURE_FORMATS, UNREADABLE, find_damage
from tests.faults.fuzz.target import Target

_MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK", "F", "I")
_NUMBERS = (0, 1, 2, 7, 127, 128, 255, 256, 9000, 32767, 65535, 2**24, 2**31 - 1, 2**32 - 1)
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# A small file may be a picture of 89 million pixels, Pillow's own limit, which takes memory and time to decode.
_RISE_MIB, _SECONDS = 900, 6.0


@cache
def _seeds() -> tuple[bytes, ...]:
    """Pictures of 12 x 9 pixels in each kind and mode that Pillow writes, some with EXIF data or several frames."""
    found, rng = [], random.Random(0)
    for mode in _MODES:
        picture = Image.new(mode, (12, 9))
        with suppress(TypeError, ValueError):  # some modes take other values
            bands = len(picture.getbands())
            picture.putdata([rng.randrange(200)] * 108 if bands == 1 else [(9, 200, 30, 99)[:bands]] * 108)
        for kind in PICTURE_FORMATS:
            found += _written(picture, kind)
            found += _written(picture, kind, exif=_exif())
    frames = [Image.new("RGB", (12, 9), color) for color in ("red", "blue")]
    for kind in ("GIF", "TIFF", "WEBP", "PNG", "MPO"):
        found += _written(frames[0], kind, save_all=True, append_images=frames[1:])
    found += _written(frames[0], "JPEG", progressive=True) + _written(frames[0], "JPEG", restart_marker_blocks=1)
    found += [
        b
        for kind in ("tiff_lzw", "jpeg", "tiff_deflate", "packbits")
        for b in _written(frames[0], "TIFF", compression=kind)
    ]
    return tuple(found)


def _written(picture: Image.Image, kind: str, **options: object) -> list[bytes]:
    stream = io.BytesIO()
    try:
        picture.save(stream, kind, **options)
    except (OSError, ValueError, TypeError, KeyError):
        return []
    return [stream.getvalue()]


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def generate(rng: random.Random) -> bytes:
    return bytes([rng.randrange(256)]) + _spoil(rng, rng.choice(_seeds()))


def mutate(rng: random.Random, data: bytes) -> bytes:
    return data[:1] + _spoil(rng, data[1:])


def _spoil(rng: random.Random, data: bytes) -> bytes:
    """Bytes flipped, cut out, doubled or cut off; numbers replaced by extreme ones, near the beginning most of all."""
    changed = bytearray(data)
    for _ in range(rng.randrange(4)):
        at = rng.randrange(min(len(changed), rng.choice((40, 400, 10_000))) + 1)
        change, width = rng.randrange(6), rng.choice((1, 2, 4))
        if change == 0:
            changed[at : at + 1] = bytes([rng.randrange(256)])
        elif change == 1:
            changed[at : at + width] = rng.choice(_NUMBERS).to_bytes(4, rng.choice(("big", "little")))[:width]
        elif change == 2:
            del changed[at : at + rng.choice((1, 4, 16, 4096))]
        elif change == 3:
            changed[at:at] = changed[at : at + rng.choice((1, 8, 64))]
        elif change == 4:
            changed[at:at] = bytes(rng.randrange(256) for _ in range(width))
        else:
            del changed[at:]
    return bytes(changed[:200_000])


def _with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the right checksums, so that what is in them is read."""
    if not data.startswith(_SIGNATURE):
        return data
    parts, place = [_SIGNATURE], len(_SIGNATURE)
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        end = place + 8 + min(length, len(data) - place - 12)
        parts += [data[place:end], struct.pack(">I", zlib.crc32(data[place + 4 : end]))]
        place = end + 4
    return b"".join([*parts, data[place:]])


def run(data: bytes) -> None:
    content = _with_checksums(data[1:]) if data[:1] and data[0] % 2 else data[1:]
    damage = find_damage(content)
    assert damage is None or damage.strip()
    problem = find_picture_problem(io.BytesIO(content))
    assert (problem is None) == (damage is None)
    size = None
    try:
        size = image_size(io.BytesIO(content))
    except UNREADABLE as error:
        assert damage is not None, error  # noqa: PT017
    try:
        opened = open_image({"bytes": content, "path": "x.png"})
    except RowError as error:
        assert "x.png" in str(error)  # noqa: PT017
        assert damage is not None, error  # noqa: PT017
        return
    assert opened.mode == "RGB"
    assert damage is not None or opened.size == size


TARGET = Target("pictures", generate, run, mutate, prepare=_seeds, rise_mib=_RISE_MIB, seconds=_SECONDS)
