"""Pictures and questions that occur twice: within a set, or in a benchmark and in what is trained on.

A picture's fingerprint is its file's hash and a perceptual one: 64 comparisons of neighbouring cells of a 9 x 8 grey
thumbnail (a "difference hash"), which survives another size, format or compression. Drawings on a plain ground share
such hashes by chance, so two pictures are nearly the same only if larger thumbnails of them correlate as well.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.data.example import Example
from balanced_thinking.data.images import content_digest, open_image

NEAR_BITS = 4  # of 64 that may differ between two versions of one picture
NEAR_CORRELATION = 0.97
_MARGIN = 8  # grey levels: on a plain ground compression alone makes neighbours differ
_SIDE = 32
_WORD = re.compile(r"\w+|[-+*/×÷<>=^%$]")


@dataclass(frozen=True)
class Twin:
    """Two samples that share a `picture`, nearly one (`near_picture`), a `question` (about the same pictures, or where
    one has none) or, the weakest, a question about other pictures (`asked`)."""

    id: str
    other: str
    kind: str
    where: str = ""  # the benchmark of `other`; "" within the set


@dataclass(frozen=True)
class Look:
    """A picture's difference hash and its grey thumbnail, of mean 0 and length 1."""

    bits: int
    thumbnail: np.ndarray

    def near(self, other: Look) -> bool:
        near = (self.bits ^ other.bits).bit_count() <= NEAR_BITS
        return near and float(self.thumbnail @ other.thumbnail) >= NEAR_CORRELATION


@dataclass(frozen=True)
class Print:
    """A sample's fingerprint: its question as it stands and as words, its answer, its pictures' hashes, their looks but
    for plain surfaces."""

    id: str
    question: str
    words: str
    answer: str
    pictures: tuple[str, ...]
    looks: tuple[Look, ...]


def fingerprint(example: Example, looks: bool = True) -> Print:
    """A picture that cannot be read has no look; whoever trains on it is told."""
    there = [image for image in example.images if not isinstance(image, Path) or image.is_file()]
    hashes = [content_digest(image) for image in there]
    seen = [_look(image) for image in there] if looks else []
    question = " ".join(example.question.casefold().split())
    words = " ".join(_WORD.findall(question))
    found = tuple(look for look in seen if look is not None)
    return Print(example.id, question, words, example.answer, tuple(hashes), found)


def _look(image: Any) -> Look | None:
    try:
        return look_of(open_image(image))
    except RowError:
        return None


def look_of(picture: Any) -> Look | None:
    """None for a plain surface, which looks like any other."""
    grey = picture.convert("L")
    cells = np.asarray(grey.resize((9, 8)), dtype=np.int16)
    bits = (cells[:, 1:] > cells[:, :-1] + _MARGIN).flatten()
    small = np.asarray(grey.resize((_SIDE, _SIDE)), dtype=np.float32).flatten()
    small -= small.mean()
    length = float(np.linalg.norm(small))
    if length < _SIDE:  # a grey level of difference
        return None
    return Look(int("".join("01"[bit] for bit in bits.astype(int)), 2), small / length)


def twins_within(prints: Sequence[Print]) -> Iterator[Twin]:
    """Samples that ask the same of the same pictures as an earlier one, and answer it in the same way."""
    first: dict[Any, str] = {}
    for one in prints:
        key = (one.question, one.answer, one.pictures)
        if (other := first.setdefault(key, one.id)) != one.id:
            yield Twin(one.id, other, "question")


def twins_between(prints: Iterable[Print], benchmark: Sequence[Print], where: str) -> Iterator[Twin]:
    """Samples with a picture, a look or a question of the benchmark: one `Twin` a sample at most, the clearest."""
    pictures = {picture: other.id for other in benchmark for picture in other.pictures}
    questions = {other.words: other for other in sorted(benchmark, key=lambda one: -len(one.pictures))}
    looks = _Looks([(look, other.id) for other in benchmark for look in other.looks])
    for one in prints:
        same = next((pictures[p] for p in one.pictures if p in pictures), None)
        if same is not None:
            yield Twin(one.id, same, "picture", where)
        elif (near := next((found for look in one.looks if (found := looks.near(look)) is not None), None)) is not None:
            yield Twin(one.id, near, "near_picture", where)
        elif (other := questions.get(one.words)) is not None:
            yield Twin(one.id, other.id, "asked" if one.pictures and other.pictures else "question", where)


class _Looks:
    """Finds a look that is near: of one band of bits more than may differ, one band at least is the same."""

    _BANDS = NEAR_BITS + 1

    def __init__(self, known: Sequence[tuple[Look, str]]) -> None:
        self._by_band: dict[tuple[int, int], list[tuple[Look, str]]] = defaultdict(list)
        for look, identity in known:
            for band in self._bands(look):
                self._by_band[band].append((look, identity))

    def near(self, look: Look) -> str | None:
        for band in self._bands(look):
            for other, identity in self._by_band.get(band, ()):
                if look.near(other):
                    return identity
        return None

    def _bands(self, look: Look) -> list[tuple[int, int]]:
        width = -(-64 // self._BANDS)
        return [(k, (look.bits >> (k * width)) & ((1 << width) - 1)) for k in range(self._BANDS)]
