"""Whether the pixels of a PNG and of a WebP are complete, where the decoder fills up what is missing.

A PNG's compressed data may stop before its last row although every checksum is right. A WebP's data have no checksum:
zeros, as an interrupted download leaves them, decode to some picture.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from PIL import Image

EARLY = "its data end early"
_PNG_START, _CHUNK_HEAD, _CHECKSUM = 8, 8, 4  # bytes
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG's kinds of color
# Adam7: the first column and row of each pass, and the steps to the next ones.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_READ_BYTES = 2**16
_LEAST_ZEROS, _SPARE_ZEROS = 64, 32  # an encoder writes up to 3 bytes that no pixel needs
_WEBP_START = 12
_FRAME_HEAD = 16  # bytes of an animation's frame before its chunks


def find_png_damage(file: BinaryIO) -> str | None:
    """Say that a PNG has fewer rows than its header states; None for a complete one. Needs little memory."""
    file.seek(_PNG_START + _CHUNK_HEAD)
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", file.read(13))
    missing = _count_bytes(width, height, depth * _CHANNELS.get(kind, 1), bool(interlaced))
    unpack = zlib.decompressobj()
    try:
        for data in _read_pixel_data(file):
            while data and missing > 0 and not unpack.eof:
                missing -= len(unpack.decompress(data, _READ_BYTES))
                data = unpack.unconsumed_tail
            if missing <= 0 or unpack.eof:
                break
        while missing > 0 and not unpack.eof and (rest := unpack.decompress(b"", _READ_BYTES)):
            missing -= len(rest)
    except zlib.error:
        return EARLY
    return EARLY if missing > 0 else None


def _count_bytes(width: int, height: int, bits: int, interlaced: bool) -> int:
    """The bytes of all rows, each with the byte that names its filter."""
    sizes = [(width, height)]
    if interlaced:
        sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in _PASSES]
    return sum(rows * (1 + (columns * bits + 7) // 8) for columns, rows in sizes if columns > 0 and rows > 0)


def _read_pixel_data(file: BinaryIO) -> Iterator[bytes]:
    """The contents of the chunks of pixels, in pieces; an animation's further frames are in others."""
    place = _PNG_START
    while True:
        file.seek(place)
        head = file.read(_CHUNK_HEAD)
        if len(head) < _CHUNK_HEAD or head[4:] == b"IEND":
            return
        length = left = int.from_bytes(head[:4], "big")
        while head[4:] == b"IDAT" and left and (data := file.read(min(left, _READ_BYTES))):
            left -= len(data)
            yield data
        place += _CHUNK_HEAD + length + _CHECKSUM


def find_webp_damage(file: BinaryIO) -> str | None:
    """Say that the pixels of a WebP, or of its first frame, end in zeros that no pixel needs; None for a complete one.

    Zeros at the end may be right: they stand for a plain area. Then the picture cannot be decoded without the last of
    them. Where data are missing, zeros take less room than the data would, so that some are left over.
    """
    file.seek(0)
    pixels = _find_webp_pixels(file.read())
    if pixels is None or pixels.data[-_LEAST_ZEROS:].strip(b"\0") or len(pixels.data) <= _LEAST_ZEROS:
        return None
    return EARLY if _can_be_decoded(pixels.kind, pixels.data[:-_SPARE_ZEROS]) else None


class _Pixels(NamedTuple):
    """The name of a chunk of pixels, and its data."""

    kind: bytes
    data: bytes


def _find_webp_pixels(data: bytes) -> _Pixels | None:
    """The first chunk of pixels of a WebP."""
    place = _WEBP_START
    while place + _CHUNK_HEAD <= len(data):
        kind, length = data[place : place + 4], int.from_bytes(data[place + 4 : place + _CHUNK_HEAD], "little")
        place += _CHUNK_HEAD
        if kind in (b"VP8 ", b"VP8L"):
            return _Pixels(kind, data[place : place + length])
        place += _FRAME_HEAD if kind == b"ANMF" else length + length % 2  # a frame has chunks of its own
    return None


def _can_be_decoded(kind: bytes, pixels: bytes) -> bool:
    """Whether a WebP of this chunk alone can."""
    body = b"WEBP" + kind + struct.pack("<I", len(pixels)) + pixels + b"\0" * (len(pixels) % 2)
    try:
        with Image.open(io.BytesIO(b"RIFF" + struct.pack("<I", len(body)) + body), formats=("WEBP",)) as image:
            image.load()
    except (OSError, ValueError, SyntaxError, EOFError):
        return False
    return True
