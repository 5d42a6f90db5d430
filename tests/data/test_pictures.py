"""Pictures of every kind become the same upright RGB on every way in; what cannot be decoded completely is refused."""

from __future__ import annotations

import base64
import io
import itertools
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps, PngImagePlugin

from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.data.checks import find_picture_problem
from balanced_thinking.data.convert import write_jsonl
from balanced_thinking.data.example import Example
from balanced_thinking.data.images import content_digest, decode_rgb, image_size, open_image
from balanced_thinking.data.load import load_data
from balanced_thinking.data.picture_files import find_damage
from balanced_thinking.data.rows import to_dataset
from balanced_thinking.data.tables import open_cell_image
from balanced_thinking.evaluation.engines.chat_messages import chat_messages

WHITE, RED, BLACK, CLEAR = (255, 255, 255), (200, 0, 0), (0, 0, 0), (0, 0, 0, 0)


def encode(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def photograph(seed: int = 0, width: int = 96, height: int = 64) -> Image.Image:
    """Smooth colours with some noise: every block of it takes bits."""
    random = np.random.default_rng(seed)
    smooth = Image.fromarray(random.integers(0, 255, (6, 6, 3), np.uint8)).resize((width, height))
    noisy = np.asarray(smooth).astype(int) + random.normal(0, 9, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def png(width: int, depth: int, kind: int, row: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG of one row, made by hand: Pillow writes few of the kinds that it reads."""
    head = (b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, kind, 0, 0, 0))
    parts = [head, *extra, (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(name, body) for name, body in parts)


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def clear_beside_red(mode: str = "RGBA") -> Image.Image:
    """Two pixels: transparent black and opaque red (in `LA`: grey 200)."""
    picture = Image.new("LA", (2, 1)) if mode in ("LA", "La") else Image.new("RGBA", (2, 1), CLEAR)
    picture.putpixel((1, 0), (200, 255) if mode in ("LA", "La") else (*RED, 255))
    return picture.convert(mode)


def palette_with_transparency(transparency: int | bytes) -> bytes:
    picture = Image.new("P", (2, 1))
    picture.putpalette([*BLACK, *RED])
    picture.putpixel((1, 0), 1)
    return encode(picture, transparency=transparency)


def animation(kind: str) -> bytes:
    later = Image.new("RGBA", (2, 1), (0, 0, 255, 255))
    return encode(clear_beside_red(), kind, save_all=True, append_images=[later], lossless=True)


GREY = (200, 200, 200)
TRANSPARENT: dict[str, tuple[Any, list[tuple[int, int, int]]]] = {
    "RGBA PNG": (encode(clear_beside_red()), [WHITE, RED]),
    "RGBA WebP": (encode(clear_beside_red(), "WEBP", lossless=True), [WHITE, RED]),
    "RGBA TIFF": (encode(clear_beside_red(), "TIFF"), [WHITE, RED]),
    "LA PNG": (encode(clear_beside_red("LA")), [WHITE, GREY]),
    "half transparent": (encode(Image.new("RGBA", (1, 1), (0, 0, 0, 128))), [(127, 127, 127)]),
    "palette, one colour": (palette_with_transparency(0), [WHITE, RED]),
    "palette, an alpha for each": (palette_with_transparency(b"\0\xff"), [WHITE, RED]),
    "palette, the other colour": (palette_with_transparency(b"\xff\0"), [BLACK, WHITE]),
    "GIF": (encode(clear_beside_red(), "GIF"), [WHITE, RED]),
    "GIF, first of two frames": (animation("GIF"), [WHITE, RED]),
    "WebP, first of two frames": (animation("WEBP"), [WHITE, RED]),
    "PNG, first of two frames": (animation("PNG"), [WHITE, RED]),
    "grey with tRNS": (png(2, 8, 0, b"\0\xc8", (b"tRNS", b"\0\0")), [WHITE, GREY]),
    "1 bit with tRNS": (png(2, 1, 0, b"\x40", (b"tRNS", b"\0\0")), [WHITE, WHITE]),
    "1 bit, white is transparent": (png(2, 1, 0, b"\x40", (b"tRNS", b"\0\1")), [BLACK, WHITE]),
    "2 bits with tRNS": (png(2, 2, 0, b"\x90", (b"tRNS", b"\0\2")), [WHITE, (85, 85, 85)]),
    "4 bits with tRNS": (png(2, 4, 0, b"\x5a", (b"tRNS", b"\0\5")), [WHITE, (170, 170, 170)]),
    "16 bits with tRNS": (png(2, 16, 0, b"\1\2\xc8\0", (b"tRNS", b"\1\2")), [WHITE, GREY]),
    "16 bits, no pixel is transparent": (png(2, 16, 0, b"\0\0\xc8\0", (b"tRNS", b"\1\2")), [BLACK, GREY]),
    "RGB with tRNS": (png(2, 8, 2, bytes([*BLACK, *RED]), (b"tRNS", bytes(6))), [WHITE, RED]),
    "16-bit RGB with tRNS": (
        png(2, 16, 2, b"\1\2\1\2\1\2\xc8\0\0\0\0\0", (b"tRNS", b"\1\2\1\2\1\2")),
        [WHITE, RED],
    ),
    "16-bit grey with alpha": (png(2, 16, 4, b"\0\0\0\0\xc8\0\xff\xff"), [WHITE, GREY]),
    "16-bit RGB with alpha": (png(2, 16, 6, bytes(8) + b"\xc8\0\0\0\0\0\xff\xff"), [WHITE, RED]),
    "premultiplied": (clear_beside_red("RGBa"), [WHITE, RED]),
    "premultiplied grey": (clear_beside_red("LA").convert("La"), [WHITE, GREY]),
    "palette with alpha": (clear_beside_red("PA"), [WHITE, RED]),
    "a PIL picture": (clear_beside_red(), [WHITE, RED]),
    "opaque RGBA": (encode(Image.new("RGBA", (1, 1), (1, 2, 3, 255))), [(1, 2, 3)]),
    "white on transparent": (encode(Image.new("RGBA", (1, 1), (255, 255, 255, 9))), [WHITE]),
}


def pixels(picture: Image.Image) -> list[tuple[int, ...]]:
    assert picture.mode == "RGB"
    return [tuple(pixel) for pixel in np.asarray(picture).reshape(-1, 3).tolist()]


@pytest.mark.parametrize("name", TRANSPARENT)
def test_what_is_transparent_becomes_white(name: str) -> None:
    source, expected = TRANSPARENT[name]
    found = open_image({"bytes": source, "path": None} if isinstance(source, bytes) else source)
    assert pixels(found) == expected


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa", "P", "L", "RGB"])
@pytest.mark.parametrize("size", [(7, 5), (40, 3), (1, 50)], ids=str)
def test_a_large_picture_is_put_on_white_in_bands(
    mode: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bands of one row, of a few, and fewer pixels than a row has."""
    clear = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size[::-1], 4), np.uint8), "RGBA")
    picture = clear.convert(mode if mode in ("RGBA", "RGBa") else "RGB")
    if mode not in ("RGBA", "RGBa"):
        picture = clear.convert("LA") if mode == "LA" else picture.convert("P").convert(mode)
    if mode in ("P", "L", "RGB"):
        first = picture.getpixel((0, 0))
        picture.info["transparency"] = first
    whole = pixels(open_image(picture))
    monkeypatch.setattr("balanced_thinking.data.pixels._BAND_PIXELS", 20)
    assert pixels(open_image(picture)) == whole
    assert size[0] * size[1] > 20


def as_mode(mode: str) -> Image.Image:
    return Image.new("RGB", (1, 1), RED).convert(mode)


OTHER_MODES: dict[str, tuple[Image.Image, tuple[int, int, int], int]] = {
    "CMYK": (as_mode("CMYK"), RED, 1),
    "CMYK JPEG": (Image.open(io.BytesIO(encode(as_mode("CMYK"), "JPEG", quality=100))), RED, 3),
    "YCbCr": (as_mode("YCbCr"), RED, 2),
    "LAB": (as_mode("LAB"), RED, 8),
    "HSV": (as_mode("HSV"), RED, 3),
    "RGBX": (as_mode("RGBX"), RED, 0),
    "one bit": (Image.new("1", (1, 1), 1), WHITE, 0),
    "floats up to 1": (Image.fromarray(np.array([[0.5, 1.0]], np.float32)), (127, 127, 127), 0),
    "floats up to 255": (Image.fromarray(np.array([[100.0, 255.0]], np.float32)), (100, 100, 100), 0),
    "floats of 16 bits": (Image.fromarray(np.array([[25600.0, 65535.0]], np.float32)), (100, 100, 100), 0),
    "floats that are no numbers": (Image.fromarray(np.array([[np.nan, 1.0]], np.float32)), BLACK, 0),
    "16 bits": (Image.fromarray(np.array([[25600, 65535]], np.uint16)), (100, 100, 100), 0),
    "16 bits, the other end first": (
        Image.frombytes("I;16B", (1, 1), b"\x64\0"),
        (100, 100, 100),
        0,
    ),
}


@pytest.mark.parametrize("name", OTHER_MODES)
def test_other_modes_keep_their_colour(name: str) -> None:
    picture, expected, tolerance = OTHER_MODES[name]
    found = pixels(open_image(picture))[0]
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= tolerance


def turned_file(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return encode(photograph(width=24, height=16), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))


def ways_in(data: bytes, folder: Path) -> dict[str, Callable[[], Any]]:
    """Every way on which a picture reaches a model."""
    path = folder / "picture"
    path.write_bytes(data)

    def opened(load: bool = False) -> Any:
        picture = Image.open(io.BytesIO(data))
        if load:
            picture.load()
        return picture

    def example(picture: Any) -> Example:
        return Example("a", "Which?", (picture,), "It is so.", "b")

    def converted(picture: Any) -> Any:
        write_jsonl([example(picture)], folder / "out.jsonl")
        return load_data(str(folder / "out.jsonl"), verify_images=True).examples[0].images[0]

    def sent(picture: Any) -> Any:
        address = chat_messages(example(picture))[0]["content"][0]["image_url"]["url"]
        return Image.open(io.BytesIO(base64.b64decode(address.split(",")[1])))

    features = datasets.Features({"image": datasets.Image()})
    cell = datasets.Dataset.from_list([{"image": {"bytes": data, "path": None}}], features=features)
    return {
        "path": lambda: path,
        "bytes": lambda: {"bytes": data, "path": None},
        "path of datasets": lambda: {"bytes": None, "path": str(path)},
        "PIL": opened,
        "PIL, decoded": lambda: opened(load=True),
        "PIL, copied": lambda: opened().copy(),
        "decoded by datasets": lambda: cell[0]["image"],
        "undecoded for the cache": lambda: decode_rgb(open_image(path, convert=False)),
        "cell -> dataset": lambda: to_dataset([example(open_cell_image({"bytes": data}))])[0]["images"][0],
        "PIL -> dataset": lambda: to_dataset([example(opened())])[0]["images"][0],
        "decoded PIL -> dataset": lambda: to_dataset([example(opened(load=True))])[0]["images"][0],
        "path -> dataset": lambda: to_dataset([example(path)])[0]["images"][0],
        "PIL -> convert": lambda: converted(opened()),
        "cell -> convert": lambda: converted(open_cell_image({"bytes": data})),
        "PIL -> server": lambda: sent(opened()),
        "path -> server": lambda: sent(path),
    }


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_way_in_gives_the_same_upright_picture(kind: str, orientation: int, tmp_path: Path) -> None:
    data = turned_file(kind, orientation)
    upright = pixels(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    for way, made in ways_in(data, tmp_path).items():
        assert pixels(open_image(made())) == upright, way
    size = (16, 24) if orientation >= 5 else (24, 16)
    assert image_size(io.BytesIO(data)) == image_size(Image.open(io.BytesIO(data))) == size
    assert open_image({"bytes": data}).size == size


def late_exif(orientation: int) -> bytes:
    """A PNG whose EXIF data are behind its pixels, as some programs write them."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    whole = encode(photograph(width=24, height=16))
    return whole[:-12] + png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + whole[-12:]


def xmp_png(orientation: int) -> bytes:
    texts = PngImagePlugin.PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", f'<x tiff:Orientation="{orientation}"/>')
    return encode(photograph(width=24, height=16), pnginfo=texts)


@pytest.mark.parametrize("made", [late_exif, xmp_png])
def test_an_orientation_behind_the_pixels_or_in_xmp_counts_too(made: Callable[[int], bytes], tmp_path: Path) -> None:
    data = made(6)
    assert {way: open_image(found()).size for way, found in ways_in(data, tmp_path).items()} == dict.fromkeys(
        ways_in(data, tmp_path), (16, 24)
    )
    assert image_size(io.BytesIO(data)) == (16, 24)


def test_broken_exif_data_do_not_refuse_a_good_picture() -> None:
    data = encode(photograph(width=24, height=16), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09broken")
    assert open_image({"bytes": data}).size == image_size(io.BytesIO(data)) == (24, 16)


def test_pictures_that_look_different_have_different_digests() -> None:
    first, other_palette = Image.new("P", (2, 2)), Image.new("P", (2, 2))
    first.putpalette([*RED])
    other_palette.putpalette([0, 0, 200])
    upright, turned = (Image.open(io.BytesIO(turned_file("PNG", orientation))) for orientation in (1, 6))
    found = [content_digest(picture) for picture in (first, other_palette, upright, turned)]
    assert len(set(found)) == 4
    assert content_digest(turned) == content_digest(open_image(turned))


def cut(data: bytes, kept: float) -> bytes:
    """The file up to this share of it, with an end mark, as a broken download that was repaired has it."""
    return data[: int(len(data) * kept)] + b"\xff\xd9"


def with_thumbnail() -> bytes:
    """A JPEG with a smaller, complete JPEG in its EXIF data."""
    inner = encode(photograph(1, 16, 16), "JPEG")
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + inner
    return encode(photograph(), "JPEG", exif=exif)


JPEG = encode(photograph(), "JPEG")
PROGRESSIVE = encode(photograph(), "JPEG", progressive=True)
RESTARTED = encode(photograph(), "JPEG", restart_marker_blocks=5)
LAST_SCAN = PROGRESSIVE.rindex(b"\xff\xda")
CUT_JPEGS = {
    "half": cut(JPEG, 0.5),
    "nearly all": cut(JPEG, 0.98),
    "16 bytes": JPEG[:-18] + b"\xff\xd9",
    "in a marker": JPEG[: len(JPEG) // 2] + b"\xff\xff\xd9",
    "in the tables": JPEG[:200] + b"\xff\xd9",
    "before the scan": JPEG[: JPEG.rindex(b"\xff\xda")] + b"\xff\xd9",
    "a scan of a component that there is not": JPEG.replace(b"\xff\xda\x00\x0c\x03\x01", b"\xff\xda\x00\x0c\x03\x09"),
    "without an end": JPEG[: len(JPEG) // 2],
    "without its last bytes": JPEG[:-2],
    "filled up with zeros": JPEG[: len(JPEG) // 2] + bytes(len(JPEG) // 2),
    "filled up with zeros and ended": JPEG[: len(JPEG) // 3] + b"\xff\xd9" + bytes(500) + b"\xff\xd9",
    "something behind the end": cut(JPEG, 0.6) + b"trailing",
    "progressive, half": cut(PROGRESSIVE, 0.5),
    "progressive, nearly all": cut(PROGRESSIVE, 0.98),
    "progressive, between two scans": PROGRESSIVE[:LAST_SCAN] + b"\xff\xd9",
    "progressive, without an end": PROGRESSIVE[: len(PROGRESSIVE) // 2],
    "with restart markers": cut(RESTARTED, 0.6),
    "without a restart interval": RESTARTED[: RESTARTED.index(b"\xff\xd1")] + RESTARTED[RESTARTED.index(b"\xff\xd2") :],
    "at a restart marker": RESTARTED[: RESTARTED.index(b"\xff\xd3")] + b"\xff\xd9",
    "with a thumbnail": cut(with_thumbnail(), 0.7),
    "with a thumbnail, without an end": with_thumbnail()[:-400],
    "grey": cut(encode(photograph().convert("L"), "JPEG"), 0.7),
    "CMYK": cut(encode(photograph().convert("CMYK"), "JPEG"), 0.7),
    "large": cut(encode(photograph(width=1600, height=1100), "JPEG"), 0.9),
    "no subsampling": cut(encode(photograph(), "JPEG", subsampling=0), 0.8),
    "one grey": cut(encode(Image.new("RGB", (640, 640), GREY), "JPEG"), 0.9),
}


@pytest.mark.parametrize("name", CUT_JPEGS)
def test_a_jpeg_that_ends_early_is_broken(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(CUT_JPEGS[name])
    for source in (tmp_path / "a.jpg", io.BytesIO(CUT_JPEGS[name])):
        problem = find_picture_problem(source)
        assert problem is not None
        assert problem.name == "broken_image"


COMPLETE_JPEGS = {
    "plain": JPEG,
    "progressive": PROGRESSIVE,
    "restart markers": RESTARTED,
    "optimized": encode(photograph(), "JPEG", optimize=True),
    "thumbnail": with_thumbnail(),
    "something behind the end": JPEG + b"trailing",
    "another JPEG behind the end": JPEG + JPEG[: len(JPEG) // 2],
    "zeros behind the end": JPEG + bytes(2000),
    "grey": encode(photograph().convert("L"), "JPEG"),
    "CMYK": encode(photograph().convert("CMYK"), "JPEG"),
    "no subsampling": encode(photograph(), "JPEG", subsampling=0),
    "one colour": encode(Image.new("RGB", (640, 640), GREY), "JPEG", optimize=True),
    "one pixel": encode(Image.new("RGB", (1, 1)), "JPEG"),
    "large": encode(photograph(width=1600, height=1100), "JPEG"),
    "several pictures, as phones write": encode(photograph(), "MPO", save_all=True, append_images=[photograph(1)]),
    "quality 1": encode(photograph(), "JPEG", quality=1),
}


@pytest.mark.parametrize("name", COMPLETE_JPEGS)
def test_a_complete_jpeg_is_good(name: str) -> None:
    assert find_damage(COMPLETE_JPEGS[name]) is None
    assert open_image({"bytes": COMPLETE_JPEGS[name]}).mode == "RGB"


def test_a_jpeg_of_any_contents_is_broken_without_its_last_bytes_and_good_with_them() -> None:
    for seed in range(12):
        options = {"quality": 30 + 5 * seed, "progressive": seed % 2 == 1, "subsampling": seed % 3}
        whole = encode(photograph(seed, 40 + seed, 50 - seed), "JPEG", **options)
        assert find_damage(whole) is None, options
        for lost in (1, 3, 10, 40):
            assert find_damage(whole[: -2 - lost] + b"\xff\xd9") is not None, (options, lost)


def short_png() -> bytes:
    """The pixels' last chunk is lost, and the end is there."""
    whole = encode(photograph())
    data = zlib.compress(photograph().tobytes())
    start = whole.index(b"IDAT") - 4
    return whole[:start] + png_chunk(b"IDAT", data[: len(data) // 2]) + whole[-12:]


SHORTENED = [
    (kind, options, kept)
    for kind, options in (
        ("PNG", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "jpeg"}),
    )
    for kept in (0.0, 0.02, 0.5, 0.95)
]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Truncated File Read")
@pytest.mark.parametrize(("kind", "options", "kept"), SHORTENED)
def test_other_kinds_that_end_early_are_broken_too(kind: str, options: dict[str, Any], kept: float) -> None:
    whole = encode(photograph(), kind, **options)
    assert find_damage(whole) is None
    assert find_damage(whole[: int(kept * len(whole))]) is not None


@pytest.mark.parametrize("data", [short_png(), encode(photograph())[:-12], encode(photograph())[:-20]])
def test_a_png_needs_all_its_chunks(data: bytes) -> None:
    assert find_damage(data) is not None


REFUSED = {
    "EPS": encode(photograph(), "EPS"),
    "PDF": encode(photograph(), "PDF"),
    "ICO": encode(photograph(), "ICO"),
    "AVIF": b"\0\0\0\x20ftypavif" + bytes(40),
    "HEIC": b"\0\0\0\x18ftypheic" + bytes(40),
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40),
    "PSD": b"8BPS\0\1" + bytes(40),
    "SVG": b'  <svg xmlns="http://www.w3.org/2000/svg"></svg>',
    "a web page": b"<!DOCTYPE html><html>not found</html>",
    "run git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
    "an empty file": b"",
    "not a PNG": b"hello, world",
    "DDS": encode(photograph(), "DDS"),
    "QOI": encode(photograph(), "QOI"),
    "TGA: convert": encode(photograph(), "TGA"),
    "a cursor": b"\0\0\2\0\1\0\x20\x20" + bytes(40),
    "not a": encode(photograph(), "PPM"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_kinds_are_refused_by_name_and_never_decoded(kind: str, tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(REFUSED[kind])
    with pytest.raises(RowError, match=rf"picture cannot be read \(.*{kind}") as raised:
        open_image(tmp_path / "picture")
    assert raised.value.problem == "broken_image"
    problem = find_picture_problem(tmp_path / "picture")
    assert problem is not None
    assert problem.name == "broken_image"
    assert kind in problem.text


def test_an_opened_eps_starts_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", refuse)
    with pytest.raises(RowError, match="EPS: convert it to PNG or JPEG"):
        open_image(Image.open(io.BytesIO(REFUSED["EPS"])))


def test_a_picture_of_too_many_pixels_is_refused_by_name_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        path = tmp_path / f"large.{kind.lower()}"
        photograph().save(path)
        for limit in (96 * 64 - 1, 96 * 64 // 3):  # Pillow itself would warn at the first and raise at the second
            monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
            monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("it was decoded"))
            with pytest.raises(RowError, match=rf"{path.name} cannot be read \(.*pixels"):
                open_image(path)
            assert find_damage(path) is not None
            monkeypatch.undo()
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 96 * 64)
        assert open_image(path).size == (96, 64)
        monkeypatch.undo()
    assert not [w for w in recwarn if issubclass(w.category, Image.DecompressionBombWarning)]


def test_a_picture_that_is_not_there_is_missing_and_not_broken(tmp_path: Path) -> None:
    with pytest.raises(RowError) as raised:
        open_image(tmp_path / "none.png")
    assert raised.value.problem == "missing_image"


def png_of(lines: bytes, width: int, height: int, *kind: int, parts: int = 1) -> bytes:
    """A PNG with right checksums around these compressed lines. `kind`: bits, color type, 0, 0, interlaced."""
    step = -(-len(lines) // parts)
    chunks = [(b"IDAT", lines[start : start + step]) for start in range(0, len(lines), step)]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, *kind)), *chunks, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*one) for one in chunks)


# (bits, color type, interlaced, the bytes of all lines of 5 x 3 pixels)
PNG_KINDS = [
    (8, 2, 0, 3 * (1 + 15)),
    (16, 6, 0, 3 * (1 + 40)),
    (1, 0, 0, 3 * (1 + 1)),
    (4, 0, 0, 3 * (1 + 3)),
    (8, 0, 1, 3 * (1 + 1) + (1 + 3) + 2 * (1 + 2) + (1 + 5)),
    (2, 0, 1, 4 * (1 + 1) + 2 * (1 + 1) + (1 + 2)),
]


@pytest.mark.parametrize(("bits", "color", "interlaced", "size"), PNG_KINDS)
def test_a_png_with_too_few_rows_is_damaged(bits: int, color: int, interlaced: int, size: int, tmp_path: Path) -> None:
    kind = (bits, color, 0, 0, interlaced)
    for missing, parts in itertools.product((0, 1, size // 2), (1, 2)):
        data = png_of(zlib.compress(b"\0" * (size - missing)), 5, 3, *kind, parts=parts)
        (tmp_path / "a.png").write_bytes(data)
        for source in (data, tmp_path / "a.png"):
            assert (find_damage(source) is None) == (not missing), (missing, parts)
    assert find_damage(png_of(zlib.compress(b"\0" * (size + 9)), 5, 3, *kind)) is None  # Pillow reads no further


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 80}, {"quality": 80, "exact": True}])
def test_a_webp_whose_end_is_zeros_is_damaged(options: dict[str, Any]) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8))
    shown = noise.convert("RGBA") if "exact" in options else noise
    stream = io.BytesIO()
    shown.save(stream, "WEBP", **options)
    data = stream.getvalue()
    assert find_damage(data) is None
    for share in (0.5, 0.8):
        kept = int(share * len(data))
        assert find_damage(data[:kept] + b"\0" * (len(data) - kept)) == "its data end early"
    stream = io.BytesIO()
    shown.save(stream, "WEBP", save_all=True, append_images=[noise.rotate(90)], **options)
    assert find_damage(stream.getvalue()) is None


@pytest.mark.parametrize("method", [0, 4])
def test_a_webp_of_a_plain_area_may_end_in_zeros(method: int) -> None:
    plain = Image.new("RGB", (1500, 1100), "blue")
    plain.paste(Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 1500, 3), np.uint8)))
    stream = io.BytesIO()
    plain.save(stream, "WEBP", lossless=True, method=method, quality=0)
    assert method or not stream.getvalue()[-1000:].strip(b"\0")
    assert find_damage(stream.getvalue()) is None
