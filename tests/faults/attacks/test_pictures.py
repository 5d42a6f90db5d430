"""Pictures from strangers: each is refused by a sentence, or decoded, in little time and memory, and runs nothing."""

from __future__ import annotations

import base64
import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from balanced_thinking.data import picture_files
from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.data.checks import find_picture_problem
from balanced_thinking.data.images import open_image
from tests.faults.attacks.attack import assert_refused, run_balanced, watch_attack


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, data: bytes = b"", before: bytes = b"", after: bytes = b"") -> bytes:
    """An RGB picture; `before` and `after` are chunks around the pixels, black without `data`."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", data or zlib.compress(b"\0" * (height * (1 + 3 * width)), 9))
    return b"\x89PNG\r\n\x1a\n" + header + before + pixels + after + chunk(b"IEND", b"")


def encode(kind: str, count: int = 1, **options: Any) -> bytes:
    file, frames = io.BytesIO(), [Image.new("L", (8, 8), k % 250) for k in range(count)]
    frames = [frame if kind == "GIF" else frame.convert("RGB") for frame in frames]
    more = {"save_all": True, "append_images": frames[1:]} if count > 1 else {}
    frames[0].save(file, kind, **more, **options)
    return file.getvalue()


def exif(*entries: tuple[int, int, int, int]) -> bytes:
    """A chunk of EXIF data with these entries (tag, type, count, value)."""
    body = b"".join(struct.pack(">HHII", *entry) for entry in entries)
    return chunk(b"eXIf", b"MM\0*\0\0\0\x08" + struct.pack(">H", len(entries)) + body + b"\0\0\0\x08")


def packed_text(size: int) -> bytes:
    return chunk(b"zTXt", b"k\0\0" + zlib.compress(b"\0" * size, 9))


def bitmap(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


JPEG = encode("JPEG")
# (what it is; the file p.png, or what makes it, where that takes long; what is said, None where it is decoded)
ATTACKS: list[tuple[str, bytes | Callable[[], bytes], str | None]] = [
    # More pixels than memory: refused by the header.
    ("531 MB of pixels", png(13_300, 13_300, b"x"), "13300 x 13300 pixels: reduce it to 89,478,485"),
    ("10 GB of pixels", png(60_000, 60_000, b"x"), "too many pixels"),
    ("a row of 170 million pixels", png(170_000_000, 1, b"x"), "170000000 x 1 pixels"),
    (
        "five million rows",
        png(12, 5_242_889, b"x"),
        "12 x 5242889 pixels: cut it into pictures with sides of at most 65,535",
    ),
    ("one pixel too many in a row", png(65_536, 1, b"x"), "65536 x 1 pixels: cut it"),
    ("the largest sides", png(2**31 - 1, 2**31 - 1, b"x"), "too many pixels"),
    ("GIF with a large screen", b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;", "too many pixels"),
    ("WebP of 16384 x 16384", b"RIFF\x1e\0\0\0WEBPVP8L\x0a\0\0\0/\xff\xff\xff\x0f" + b"\0" * 10, "too many pixels"),
    ("BMP of 30000 x 30000", bitmap(30_000, 30_000), "too many pixels"),
    ("BMP of a negative size", bitmap(-5, -(2**31)), "too many pixels"),
    ("pixels that are not there", png(4_000, 4_000, b"x"), "damaged"),
    # Data around the pixels.
    ("a text of 60 MB", lambda: png(8, 8, before=packed_text(60_000_000)), "damaged (Decompressed data too large"),
    (
        "the same behind the pixels",
        lambda: png(8, 8, after=packed_text(60_000_000)),
        "damaged (Decompressed data too large",
    ),
    (
        "80 texts of 1 MB",
        lambda: png(8, 8, before=packed_text(1_000_000) * 80),
        "damaged (Too much memory used in text",
    ),
    ("a colour profile of 60 MB", png(8, 8, before=chunk(b"iCCP", b"k\0\0" + zlib.compress(b"\0" * 10**7))), "damaged"),
    ("100,000 texts", png(8, 8, before=chunk(b"tEXt", b"k\0v") * 100_000), "a PNG of more than 20,000 chunks"),
    ("300,000 empty chunks", png(8, 8, after=chunk(b"abcd", b"") * 300_000), "a PNG of more than 20,000 chunks"),
    ("EXIF data in themselves", png(8, 8, before=exif((0x8769, 4, 1, 8))), None),
    ("EXIF data of 4 GB", png(8, 8, before=exif((0x0112, 3, 2**30, 0))), None),
    ("10,000 entries of EXIF", png(8, 8, before=exif(*[(0x0112, 3, 2**31, 0)] * 10_000)), None),
    ("a JPEG of fill bytes", JPEG[:-2] + b"\xff" * 2_000_000, "its data end early"),
    ("a JPEG of 100 EXIF blocks", JPEG[:2] + (b"\xff\xe1\xff\xffExif\0\0" + b"\0" * 65_527) * 100 + JPEG[2:], None),
    # Many frames: the first counts.
    ("animated PNG", lambda: encode("PNG", 300), None),
    ("animated GIF", lambda: encode("GIF", 1_000), None),
    ("animated WebP", lambda: encode("WEBP", 100), None),
    ("MPO", encode("MPO", 3), None),
    # Other kinds under the name of a PNG: none is decoded, and EPS starts no Ghostscript.
    ("EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(pwned) (w) file\n", "EPS or PostScript"),
    ("EPS of DOS", b"\xc5\xd0\xd3\xc6" + b"\0" * 99, "EPS: convert"),
    ("EPS behind a space", b" %!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a PNG"),
    ("PSD", b"8BPS" + b"\0" * 99, "Photoshop"),
    ("ICO", b"\0\0\1\0\1\0" + b"\0" * 99, "an icon"),
    ("PDF", b"%PDF-1.4", "PDF"),
    ("SVG", b"<svg xmlns='x'>" + b"<g>" * 10_000, "SVG"),
    ("FITS", b"SIMPLE  =                    T" + b" " * 99, "not a PNG"),
    ("TIFF", encode("TIFF"), None),
    ("TIFF without pictures", b"II*\0\x08\0\0\0\0\0\x08\0\0\0", "not a PNG"),
    ("an empty file", b"", "an empty file"),
    ("zeros", b"\0" * 1_000, "not a PNG"),
]


@pytest.mark.parametrize(("content", "said"), [row[1:] for row in ATTACKS], ids=[row[0] for row in ATTACKS])
def test_a_hostile_picture_is_refused_or_decoded(
    content: bytes | Callable[[], bytes], said: str | None, tmp_path: Path
) -> None:
    file, content = tmp_path / "p.png", content() if callable(content) else content
    file.write_bytes(content)
    with watch_attack(tmp_path, seconds=5, memory_mib=128):
        for source in (file, io.BytesIO(content)):
            problem = find_picture_problem(source)
            assert (problem is None) == (said is None), problem
            if problem is not None:
                assert said in problem.text  # type: ignore[operator]
        if said is None:
            assert open_image(file).size == (8, 8)
        else:
            for convert in (True, False) if "damaged" not in said and "early" not in said else ():
                with pytest.raises(RowError, match=r"p\.png"):
                    open_image(file, convert=convert)


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "loop", "dangling link"])
def test_a_picture_that_is_no_file_is_never_waited_for(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "p.png"
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to({"device": "/dev/zero", "loop": place, "dangling link": tmp_path / "none"}[kind])
    row = {"question": "q ?", "think": "t .", "answer": "a", "image": "p.png"}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    assert_refused(run_balanced(["convert", "x.jsonl", "--out", "o.jsonl"], tmp_path, seconds=3), "missing_image")
    with watch_attack(tmp_path, seconds=2), pytest.raises(RowError, match=r"p\.png"):
        open_image(place)


# What a row may have in place of a picture.
ENTRIES: list[tuple[str, Any, str]] = [
    ("base64 of another kind", base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 99).decode(), "broken_image"),
    ("base64 that is none", "data:image/png;base64," + "!" * 99, "broken_image"),
    ("spaces behind base64", "iVBORw0KGgo" + " " * 100_000 + "!", "missing_image"),
    ("a bomb in base64", base64.b64encode(png(13_300, 13_300, b"x")).decode(), "13300 x 13300"),
    ("EPS in a data URI", "data:image/png;base64," + base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0").decode(), "EPS"),
    ("bytes that are a text", {"bytes": "x"}, "image"),
    ("bytes that are a number", {"bytes": 5}, "image"),
    ("a path that is a number", {"path": 5}, "image"),
    ("a path in a list in a list", [["p.png"]], "image"),
    ("a web address", "http://127.0.0.1:9/p.png", "remote_image"),
    ("one with a file's scheme", "file:///dev/zero", "missing_image"),
    ("another scheme", "gopher://127.0.0.1/p.png", "missing_image"),
]


@pytest.mark.parametrize(("entry", "said"), [row[1:] for row in ENTRIES], ids=[row[0] for row in ENTRIES])
def test_a_hostile_entry_for_a_picture_is_refused(entry: Any, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps({"question": "q ?", "think": "t .", "answer": "a", "image": entry}))
    result = run_balanced(["convert", "x.jsonl", "--out", "o.jsonl"], tmp_path, seconds=3, memory_mib=128)
    assert_refused(result, said)


def test_the_longest_row_is_decoded() -> None:
    assert open_image({"bytes": png(65_535, 1)}).size == (65_535, 1)


def test_the_limit_of_pixels_can_be_raised_and_lowered_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
    with pytest.raises(picture_files.RefusedPictureError, match="set BALANCED_THINKING_MAX_PIXELS"):
        picture_files.open_picture_file(png(8, 8))
    with pytest.raises(picture_files.RefusedPictureError, match="too many pixels"):
        picture_files.open_picture_file(png(16, 16))
    monkeypatch.setenv("BALANCED_THINKING_MAX_PIXELS", "256")
    assert picture_files.open_picture_file(png(16, 16)).size == (16, 16)
    assert Image.MAX_IMAGE_PIXELS == 60
    monkeypatch.setenv("BALANCED_THINKING_MAX_PIXELS", "10")
    with pytest.raises(picture_files.RefusedPictureError, match="8 x 8 pixels: reduce it to 10"):
        picture_files.open_picture_file(png(8, 8))
