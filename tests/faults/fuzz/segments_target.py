"""Parser strings: every format, formats that users define, and generated token ids.

An input is one byte for the format, one for what the prompt has opened, then the text; a format of one's own is JSON
before a line break.
"""

from __future__ import annotations

import json
import random

from balanced_thinking.segments import (
    ANSWER,
    FORMATS,
    THINK,
    find_opened,
    generated_segments,
    get_format,
    parse,
    render,
)
from balanced_thinking.segments.opening import split_prompt_end
from balanced_thinking.segments.trim import SENTENCE_GAPS, split_longest_think, trim_think
from tests.faults.fuzz.target import Target
from tests.faults.fuzz.values import FRAGMENTS, TAGS, decode_text, mutate_bytes, nasty_text, nasty_value, write_json
from tests.segments.test_properties import check, mutated

_NAMES = tuple(FORMATS)
_OPENED = ("", "<think>", "<think>\n", "◁think▷", "<think>\n\n</think>\n\n", "x")
_OWN = len(_NAMES)  # the byte of a format of one's own
_KEYS = ("name", "think_open", "think_close", "answer_open", "answer_close", "stages", "open_optional", "prose", "tail")
_KEYS += ("wrap", "markers", "think_required", "think_pad", "answer_pad", "gap")


class Characters:
    """A tokenizer with one token for each character."""

    def decode(self, ids: list[int], **_: object) -> str:
        return "".join(map(chr, ids))


def generate(rng: random.Random) -> bytes:
    kind = rng.randrange(_OWN + 1 if rng.random() < 0.7 else 256) % 256
    text = mutated(rng) if rng.random() < 0.6 else "".join(nasty_text(rng) for _ in range(rng.randrange(4)))
    head = bytes([kind, rng.randrange(len(_OPENED))])
    if kind % (_OWN + 1) == _OWN:
        head += write_json(rng, _own_format(rng)).replace(b"\n", b" ") + b"\n"
    return head + text.encode("utf-8", "surrogatepass")


def _own_format(rng: random.Random) -> object:
    if rng.random() < 0.1:
        return nasty_value(rng)
    own: dict[str, object] = {"think_close": "</r>", "answer_open": "<a>"} if rng.random() < 0.5 else {}
    for key in rng.sample(_KEYS, rng.randrange(6)):
        own[key] = rng.choice(
            (rng.choice(TAGS), nasty_text(rng, 3), nasty_value(rng), ["<a>", "</a>"], [["<s>", ""]], True)
        )
    return own


def run(data: bytes) -> None:
    kind, opened, rest = data[:1], data[1:2], data[2:]
    which = (kind or b"\0")[0] % (_OWN + 1)
    own, begun = None, _OPENED[(opened or b"\0")[0] % len(_OPENED)]
    if which == _OWN:
        head, _, rest = rest.partition(b"\n")
        try:
            own = json.loads(head)
        except (ValueError, RecursionError):
            return
        if not isinstance(own, dict):
            return
    text = decode_text(rest)
    format = get_format(_NAMES[which] if own is None else own)
    parsed = parse(text, format, opened=begun)
    assert "".join(text[span.start : span.end] for span in parsed.spans) == text
    assert [span.segment for span in parsed.spans] in ([], [THINK], [ANSWER], [THINK, ANSWER])
    if own is None and not begun:
        check(parsed)
    _check_around(text, format, begun)
    if len(text) <= 500:
        ids = list(map(ord, text))
        again, segments = generated_segments(ids, Characters(), format, opened=begun)
        assert again == parsed
        assert len(segments) == len(ids)
        assert segments == sorted(segments)
    units = split_longest_think(parsed, SENTENCE_GAPS, format)
    assert all(0 <= start <= end <= len(text) for start, end in units)
    trim_think(parsed, 2, units)


def _check_around(text: str, format: object, begun: str) -> None:
    """What prompts open, and what `render` writes, in the same format."""
    fmt = get_format(format)  # type: ignore[arg-type]
    assert text.endswith(find_opened(text, fmt))
    end = split_prompt_end(text, fmt)
    assert text.startswith(end.before)
    render(text, begun or "x", fmt)


def mutate(rng: random.Random, data: bytes) -> bytes:
    return data[:2] + mutate_bytes(rng, data[2:], FRAGMENTS)


TARGET = Target("segments", generate, run, mutate)
