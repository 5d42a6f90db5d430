"""Values that break readers: texts, numbers, nested JSON, and mutations of a text that keep most of its structure."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from typing import Any

from balanced_thinking.segments import FORMATS
from balanced_thinking.segments.scan import END_OF_TURN

TAGS = tuple(dict.fromkeys(tag for fmt in FORMATS.values() for tag in (*fmt.tag_kinds, *fmt.wrap) if tag))
PICTURE_PLACES = (
    "<image>",
    "<IMAGE>",
    "<image_1>",
    "<|image_pad|>",
    "<video>",
    "<|audio|>",
    "<img>",
    "[IMG]",
    "<image",
)
FRAGMENTS = (
    *TAGS,
    *END_OF_TURN,
    *PICTURE_PLACES,
    *("", " ", "\n", "\r\n", "\t", "\u3000", "\x1c", "\x85", "\u2028", "\x00", "\x1b[2J", "\x7f"),
    *(
        "\ud800",
        "\udfff",
        "\ud83d",
        "\ufeff",
        "\u202e",
        "\u200d",
        "🤔",
        "👩‍🚀",
        "思考",
        "e\u0301",
        "İ",
        "ß",
        "ﬁ",
        "\U0010ffff",
    ),
    *(
        "B",
        "(B)",
        "b.",
        "B. dog",
        "option C",
        "A or B",
        "Final Answer: C",
        "The answer is",
        "答案：",
        "dog",
        "12",
        "-3",
    ),
    *("1,200.50", "5 %", "1/2", "1 1/2", "½", "3 \\times 10^8", "٢٧٪", "Ｂ", "１２", "1e400", "1e-400", "0x1F", "5 cm"),
    *("\\frac{1}{2}", "\\text{B}", "$x$", "**B**", "`B`", "\\(", "\\)", "{", "}", "[", "]", "(", ")", '"', "'", "\\"),
    *("=1+1", "+1", "-1", "@SUM(A1)", "|", " | ", ",", ";", "<script>alert(1)</script>", "&amp;", "]]>", "<!--", "-->"),
    *("{{ x }}", "{% for %}", "%s", "%(x)s", "{0}", "$HOME", "${X}", "~", "../..", "/etc/passwd", "C:\\", "http://x/y"),
    *("nan", "NaN", "<NA>", "null", "None", "true", "no", "inf", "-Infinity", "['a', 'b']", '["a" "b"]', "[1,", "(1,)"),
)
_LONG = (
    "a",
    "<think>",
    "</think>",
    "\\boxed{",
    "{",
    "}",
    "<image>",
    "<video>",
    " ",
    "\n",
    "9",
    "(",
    "[",
    "\\frac",
    "<",
)
_LONG += (
    "=",
    "_",
    "*",
    "or ",
    ", ",
    "1/",
    "The answer is ",
    "<|image_pad|>",
    ".",
    "$",
    "A. ",
    "\\text{",
    "<answer>",
    "</answer>",
    "<answer>x</answer>",
    "e\u0301",
)
# Pieces between which a mutation cuts: tags, words, numbers, white space, single signs.
_PIECES = re.compile(r"</?[\w|:]+>|<\|[^<>\s]{1,30}\|>|\w+|\s+|.", re.DOTALL)
_MOST = 4000  # characters of a mutated text, except for the few long ones
_SPLICES = (
    b"\x00",
    b"\xff",
    b"\xed\xa0\x80",
    b"\n",
    b'"',
    b"\\u",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\xf0\x9f",
)


def nasty_text(rng: random.Random, pieces: int = 6) -> str:
    """A short text of fragments; one in 200 has one fragment a thousand times, which shows quadratic time."""
    if rng.random() < 0.005:
        return rng.choice(_LONG) * rng.choice((300, 1000, 5000)) + rng.choice(FRAGMENTS)
    if rng.random() < 0.1:
        return "".join(chr(rng.choice((rng.randrange(128), rng.randrange(0x110000)))) for _ in range(rng.randrange(8)))
    return "".join(rng.choice(FRAGMENTS) for _ in range(rng.randrange(pieces)))


def nasty_number(rng: random.Random) -> Any:
    """An integer or a float, from usual to far too large, also the three that JSON does not have."""
    usual: tuple[Any, ...] = (0, 1, -1, 2, 7, 0.5, 1.0, 4.0, -0.0, 1e-7, True, False, rng.randrange(-9, 100))
    odd = (2**31, 2**63, -(2**63) - 1, 10**30, 10**400, 1e308, 5e-324, float("nan"), float("inf"), float("-inf"))
    return rng.choice(odd if rng.random() < 0.3 else usual)


def nasty_value(rng: random.Random, depth: int = 3) -> Any:
    """A JSON value, nested at most `depth` deep."""
    kind = rng.randrange(8 if depth else 5)
    if kind == 0:
        return None
    if kind == 1:
        return nasty_number(rng)
    if kind < 5:
        return nasty_text(rng)
    if kind == 5:
        return {nasty_text(rng, 3): nasty_value(rng, depth - 1) for _ in range(rng.randrange(4))}
    return [nasty_value(rng, depth - 1) for _ in range(rng.randrange(4))]


def write_json(rng: random.Random, value: Any) -> bytes:
    """JSON as Python writes it: with NaN, escapes or bytes; lone surrogates become bytes that are not UTF-8."""
    return json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def nest_deeply(rng: random.Random, inner: bytes = b"1") -> bytes:
    """JSON or YAML in flow style of some hundreds or thousands of levels."""
    depth = rng.choice((50, 300, 1100, 20_000))
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"[{", b"}]"), (b"[", b"")))
    return opening * depth + inner + closing * depth


def mutate_text(rng: random.Random, text: str, words: Sequence[str] = FRAGMENTS) -> str:
    """A text with one to four of its pieces deleted, doubled, swapped, repeated or replaced by a word."""
    pieces = _PIECES.findall(text)
    for _ in range(rng.randrange(1, 5)):
        at, width = rng.randrange(len(pieces) + 1), rng.randrange(1, 4)
        change = rng.randrange(7)
        if change == 0:
            del pieces[at : at + width]
        elif change == 1:
            pieces[at:at] = pieces[at : at + width]
        elif change == 2:
            other = rng.randrange(len(pieces) + 1)
            pieces[at : at + width] = pieces[other : other + width]
        elif change == 3:
            pieces[at : at + 1] = [rng.choice(words)]
        elif change == 4:
            pieces.insert(at, nasty_text(rng, 3))
        elif change == 5 and pieces:
            pieces[at : at + 1] = [pieces[min(at, len(pieces) - 1)] * rng.randrange(2, 20)]
        else:
            pieces.insert(at, rng.choice(words))
    mutated = "".join(pieces)
    return mutated if len(mutated) <= max(_MOST, 2 * len(text)) else mutated[:_MOST]


def mutate_bytes(rng: random.Random, data: bytes, words: Sequence[str] = FRAGMENTS) -> bytes:
    """Bytes mutated as a text, or byte by byte: flipped, cut, spliced."""
    if rng.random() < 0.7:
        return encode_text(mutate_text(rng, decode_text(data), words))
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(changed) + 1)
        change = rng.randrange(4)
        if change == 0 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif change == 1:
            del changed[at : at + rng.choice((1, 2, 8, len(changed)))]
        else:
            changed[at:at] = rng.choice(_SPLICES)
    return bytes(changed)


def decode_text(data: bytes) -> str:
    """The text of bytes, lone surrogates included; bytes that are not UTF-8 become surrogates of their own."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "surrogateescape")


def encode_text(text: str) -> bytes:
    """The bytes of a text that `decode_text` gave."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
