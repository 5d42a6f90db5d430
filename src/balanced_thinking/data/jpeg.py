"""Whether a JPEG's scan data are complete.

libjpeg, and so Pillow, fills what is missing with grey and only warns. So other data are put behind the data of every
scan: if two kinds of them give two pictures, the decoder had something left to decode.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from PIL import Image

# A marker with its code. Before it there may be fill bytes. 0xFF00 is data, and 0xFFD0 to 0xFFD7 separate data.
# Both take time in proportion to the data, also where these are nothing but fill bytes.
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_RESTART = re.compile(rb"(?<!\xff)\xff++[\xd0-\xd7]")
_END, _SCAN, _WITHOUT_LENGTH = 0xD9, 0xDA, (0x01, 0xD8)
# Codes of frame headers. In the arithmetic ones an encoder may leave out zeros at a scan's end.
_SEQUENTIAL, _PROGRESSIVE, _ARITHMETIC = (0xC0, 0xC1), 0xC2, (0xC9, 0xCA)
_COEFFICIENTS = 64
_EARLY = "its data end early"
_FIRST_RESTART = 0xD0
_SIDE = 512  # at least as many pixels a side are decoded of a large sequential picture
# They differ from the first bit on, so that they hardly ever decode to the same. Neither has a byte 0xFF.
_TAILS = tuple(start + Random(start).randbytes(256).replace(b"\xff", b"\xa5") for start in (b"\x3c", b"\xc3"))


class _Segment(NamedTuple):
    """A marker's code, where its parameters begin, and where the data of a scan begin and end (else both the same)."""

    code: int
    parameters: int
    data: int
    end: int


def find_jpeg_damage(data: bytes) -> str | None:
    """Say what is missing at the end of a JPEG that can be opened; None for a complete one. Raises what Pillow raises.

    What follows the end of the picture does not matter, nor does a thumbnail in its metadata. A loss of single bytes
    is noticed in nearly all pictures, a loss of 16 bytes or more in all.
    """
    segments = list(_list_segments(data))
    if not segments or segments[-1].code != _END:
        return _EARLY
    if any(segment.code in _ARITHMETIC for segment in segments):
        return None
    scans = [segment for segment in segments if segment.code == _SCAN]
    try:
        incomplete = _lacks_coefficients(data, segments)
    except LookupError:  # a header that is cut, or a scan of a component that there is not
        incomplete = True
    if incomplete or any(_lacks_interval(data[scan.data : scan.end]) for scan in scans):
        return _EARLY
    small = len(scans) == 1  # the details are in the later scans, so that those need the full size
    first, second = (_decode_pixels(_extend_scans(data, scans, tail), small) for tail in _TAILS)
    return None if first == second else _EARLY


def _list_segments(data: bytes) -> Iterator[_Segment]:
    """Up to the end of the picture. Without an end, or with a cut segment, the last one is not the end marker."""
    position = 2
    while (marker := _MARKER.search(data, position)) is not None:
        code, position = marker[1][0], marker.end()
        if code in _WITHOUT_LENGTH:
            continue
        start = position
        if code == _END:
            yield _Segment(code, start, start, start)
            return
        position += int.from_bytes(data[position : position + 2], "big")
        begin = position
        if code == _SCAN:
            following = _MARKER.search(data, position)
            if following is None:
                return
            position += len(data[position : following.start()].rstrip(b"\xff"))
        yield _Segment(code, start, begin, position)


def _lacks_coefficients(data: bytes, segments: list[_Segment]) -> bool:
    """Whether a component has a coefficient of which no scan, or no last bit, is there."""
    missing_bits: dict[int, list[int]] = {}
    for code, start, begin, _ in segments:
        body = data[start:begin]
        if code in (*_SEQUENTIAL, _PROGRESSIVE):
            components = [body[8 + 3 * k] for k in range(body[7])]
            missing_bits = {component: [_COEFFICIENTS] * _COEFFICIENTS for component in components}
        elif code == _SCAN:
            count = body[2]
            first, last, low_bit = body[3 + 2 * count], body[4 + 2 * count], body[5 + 2 * count] & 15
            for component in (body[3 + 2 * k] for k in range(count)):
                missing_bits[component][first : last + 1] = [low_bit] * (last + 1 - first)
    return any(any(bits) for bits in missing_bits.values())


def _lacks_interval(body: bytes) -> bool:
    """Whether restart markers, which are numbered from 0 to 7 again and again, are missing in a scan's data."""
    return any(marker[-1] & 7 != k % 8 for k, marker in enumerate(_RESTART.findall(body)))


def _extend_scans(data: bytes, scans: list[_Segment], tail: bytes) -> bytes:
    """The JPEG with more data before every restart marker, and before and behind one more at the end of every scan."""
    parts, last = [], 0
    for scan in scans:
        body, count = _RESTART.subn(lambda marker: tail + marker[0], data[scan.data : scan.end])
        parts += [data[last : scan.data], body, tail, bytes([0xFF, _FIRST_RESTART + count % 8]), tail]
        last = scan.end
    return b"".join([*parts, data[last:]])


def _decode_pixels(data: bytes, small: bool) -> bytes:
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        if small:
            image.draft(None, (_SIDE, _SIDE))
        return image.tobytes()
