"""Files and bytes of pictures: which kinds are decoded, how large they may be, and whether they are complete."""

from __future__ import annotations

import io
import os
import struct
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from balanced_thinking.data.jpeg import find_jpeg_damage
from balanced_thinking.data.picture_ends import find_png_damage, find_webp_damage

# The only kinds that are decoded. Pillow knows more, of which one starts another program (EPS).
PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
PICTURE_SUFFIXES = ("png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff")
UNREAD_PICTURE_SUFFIXES = ("heic", "heif", "avif", "svg")
MEDIA_SUFFIXES = ("mp4", "avi", "mov", "mkv", "webm", "wav", "mp3", "flac", "ogg", "m4a")
PICTURE_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"BM", b"GIF8", b"II*\x00", b"MM\x00*")  # of their files
SHOWN_FORMATS = "PNG, JPEG, WebP, BMP, GIF or TIFF"
# What Pillow raises for files that are missing, damaged, too large or not pictures. PNG damage is a SyntaxError; the
# others come from tables and numbers that a damaged file has in places where Pillow expects more.
UNREADABLE = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError),
    *(LookupError, TypeError, AttributeError, ArithmeticError, AssertionError),
)
_END_CHECKS = {"PNG": find_png_damage, "WEBP": find_webp_damage}  # of what Pillow does not notice
_JPEG_FORMATS = ("JPEG", "MPO")  # the second: a JPEG with further pictures behind the first, as phones write
# Kinds that people have as pictures: the place and the bytes by which a file says what it is. The cure is a conversion
# unless the name has one of its own.
_OTHER_KINDS = (
    (0, b"%!PS", "EPS or PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "a Photoshop document (PSD)"),
    (0, b"\0\0\1\0", "an icon (ICO)"),
    (0, b"\0\0\2\0\0\0\0\0", "TGA"),  # a cursor has the number of its pictures there
    (0, b"\0\0\x0a\0\0\0\0\0", "TGA"),
    (0, b"\0\0\2\0", "a cursor (CUR)"),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftyp", "a video (MP4): save one of its frames as PNG or JPEG"),
    (0, b"\0\0\0\x0cjP", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\0\0\0\x0cJXL", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "SVG or other XML"),
    (0, b"<", "a web page: download the picture itself"),
    (0, b"DDS ", "DDS"),
    (0, b"qoif", "QOI"),
    (0, b"\xd7\xcd\xc6\x9a", "WMF"),
    (0, b"\x1aE\xdf\xa3", "a video (WebM): save one of its frames as PNG or JPEG"),
    (0, b"version https://git-lfs", "a Git LFS pointer without its file: run git lfs pull"),
)
_PREFIX_BYTES = 64
MOST_FILE_BYTES = 2**29
MOST_SIDE = 2**16 - 1  # pixels, as in a JPEG; Pillow takes many seconds for a picture of millions of rows
MOST_CHUNKS = 20_000  # of a PNG; usual ones have a few hundred
_PNG_START, _CHUNK_BYTES = b"\x89PNG\r\n\x1a\n", 12  # without its data, a chunk has these many bytes
_PIXELS_VARIABLE = "BALANCED_THINKING_MAX_PIXELS"


class RefusedPictureError(OSError):
    """A picture that is not decoded: of another kind, too large, or incomplete. The message says which, and a cure."""


def open_picture_file(source: Any) -> Any:
    """Open a picture without decoding it, from a path, bytes or a file; of several frames the first counts.

    Raises RefusedPictureError for kinds that are not decoded and for too many pixels, and what Pillow raises.
    """
    if isinstance(source, (str, Path)):
        _refuse_special_file(Path(source))
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        _refuse_many_chunks(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # at our own limit
            opened = _open_of_any_size(file)
    except UnidentifiedImageError as error:
        raise RefusedPictureError(_describe_kind(_read_prefix(source))) from error
    except Image.DecompressionBombError as error:
        raise RefusedPictureError(f"too many pixels: {error}") from error
    check_pixel_count(opened)
    return opened


def _open_of_any_size(file: Any) -> Any:
    """As `Image.open`, with our limit in place of Pillow's own, which refuses twice its number while it opens."""
    limit = find_pixel_limit()
    if limit is None or Image.MAX_IMAGE_PIXELS is None or limit <= Image.MAX_IMAGE_PIXELS:
        return Image.open(file, formats=PICTURE_FORMATS)
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, limit
    try:
        return Image.open(file, formats=PICTURE_FORMATS)
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _refuse_special_file(file: Path) -> None:
    """Raises FileNotFoundError for what is no file, such as a pipe, which would be waited for; and for a huge one."""
    if not os.path.isfile(file):
        raise FileNotFoundError(f"there is no file {file}")
    if (size := os.path.getsize(file)) > MOST_FILE_BYTES:
        raise RefusedPictureError(f"{size >> 20} MiB: reduce it to {MOST_FILE_BYTES >> 20} MiB")


def _refuse_many_chunks(file: Any) -> None:
    """Raises RefusedPictureError for a PNG that has more chunks than Pillow reads in a second."""
    with Path(file).open("rb") if isinstance(file, (str, Path)) else nullcontext(file) as stream:
        size, place = stream.seek(0, os.SEEK_END), len(_PNG_START)
        stream.seek(0)
        chunks = 0
        if size > _CHUNK_BYTES * MOST_CHUNKS and stream.read(place) == _PNG_START:
            while place < size and chunks <= MOST_CHUNKS and (head := stream.read(8))[4:] != b"IEND":
                place += int.from_bytes(head[:4], "big") + _CHUNK_BYTES
                stream.seek(place)
                chunks += 1
        stream.seek(0)
    if chunks > MOST_CHUNKS:
        raise RefusedPictureError(f"a PNG of more than {MOST_CHUNKS:,} chunks: save it again")


def check_picture_kind(image: Image.Image) -> None:
    """Raises RefusedPictureError for an opened picture that is not decoded yet, of a kind that is never decoded."""
    undecoded = bool(getattr(image, "tile", None))
    if undecoded and image.format not in (None, *PICTURE_FORMATS, *_JPEG_FORMATS):
        raise RefusedPictureError(f"{image.format}: convert it to PNG or JPEG")


def check_pixel_count(image: Image.Image) -> None:
    """Raises RefusedPictureError for more pixels than `find_pixel_limit` allows, or too long a side.

    The size is in a file's header.
    """
    if max(image.size) > MOST_SIDE:
        raise RefusedPictureError(
            f"{image.width} x {image.height} pixels: cut it into pictures with sides of at most {MOST_SIDE:,} pixels"
        )
    limit = find_pixel_limit()
    if limit is not None and image.width * image.height > limit:
        raise RefusedPictureError(
            f"{image.width} x {image.height} pixels: reduce it to {limit:,} pixels, or set {_PIXELS_VARIABLE}"
        )


def find_pixel_limit() -> int | None:
    """The most pixels of a picture: BALANCED_THINKING_MAX_PIXELS, else `PIL.Image.MAX_IMAGE_PIXELS` (None: no limit).

    Pillow's own is 89,478,485, which are 256 MiB of RGB.
    """
    asked = os.environ.get(_PIXELS_VARIABLE, "")
    return int(asked) if asked.isdecimal() and len(asked) < 19 else Image.MAX_IMAGE_PIXELS


def _may_end_early(image: Image.Image) -> bool:
    """Whether rows of a decoded picture may be missing: of a PNG Pillow leaves them at 0, so the last pixel is 0."""
    if image.format != "PNG" or image.info.get("interlace"):
        return True
    pixel = image.getpixel((image.width - 1, image.height - 1))
    return not any(pixel) if isinstance(pixel, tuple) else not pixel


def find_damage(source: Path | bytes) -> str | None:
    """Say why a picture cannot be used; None for a complete one. Everything is decoded, a large JPEG in part."""
    try:
        with open_picture_file(source) as image:
            if image.format in _JPEG_FORMATS:
                return find_jpeg_damage(source if isinstance(source, bytes) else source.read_bytes())
            if image.format == "PNG":
                image.verify()  # checksums and the end, which decoding does not look at
                image = open_picture_file(source)
            image.load()
            if image.format in _END_CHECKS and _may_end_early(image):
                with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
                    if found := _END_CHECKS[image.format](file):
                        return found
            if image.mode in ("P", "PA") and image.palette is None:  # Pillow decodes it, but cannot convert it
                return "damaged (its palette is missing)"
    except RefusedPictureError as error:
        return str(error)
    except UNREADABLE as error:
        return f"damaged ({error})"
    return None


def _read_prefix(source: Any) -> bytes:
    if isinstance(source, bytes):
        return source[:_PREFIX_BYTES]
    if isinstance(source, (str, Path)):
        with Path(source).open("rb") as file:
            return file.read(_PREFIX_BYTES)
    source.seek(0)
    return source.read(_PREFIX_BYTES)


def _describe_kind(prefix: bytes) -> str:
    if not prefix:
        return "an empty file"
    start = prefix.removeprefix(b"\xef\xbb\xbf")
    for place, magic, name in _OTHER_KINDS:
        if start[place:].lstrip()[: len(magic)] == magic if magic[:1] == b"<" else start[place:].startswith(magic):
            return name if ": " in name else f"{name}: convert it to PNG or JPEG"
    return f"not a {SHOWN_FORMATS} picture"
