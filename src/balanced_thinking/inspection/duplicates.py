"""Find pictures and questions that occur twice: in the data, or in both the data and a benchmark.

A picture has the hash of its file and a perceptual hash: 64 comparisons of neighbouring cells of a 9 x 8 grey thumbnail
(a "difference hash"). The second one survives another size, format or compression. Different drawings on a plain
background can share it by chance, and in other colors, so two pictures count as nearly the same only if larger
thumbnails in color correlate, too.
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
_MARGIN = 8  # grey levels: on a plain background compression alone makes neighbours differ
_SIDE = 32
_WORD = re.compile(r"\w+|[-+*/×÷<>=^%$]")


@dataclass(frozen=True)
class Duplicate:
    """Sample `id` has something in common with sample `other`. The first kind that fits counts:

    picture: the same file. near_picture: nearly the same picture. question: the same question about the same pictures,
    or at least one of the two has no picture. question_only: the same question about other pictures.
    """

    id: str
    other: str
    kind: str
    benchmark: str = ""  # where `other` is; "": in the data themselves


@dataclass(frozen=True)
class PictureHash:
    """A picture's difference hash, and its thumbnail in color with mean 0 and norm 1, in 16 bits: a set has many."""

    bits: int
    thumbnail: np.ndarray

    def is_near(self, other: PictureHash) -> bool:
        """Whether both are nearly the same picture."""
        near = (self.bits ^ other.bits).bit_count() <= NEAR_BITS
        return near and float(np.vdot(self.thumbnail.astype(np.float32), other.thumbnail)) >= NEAR_CORRELATION


@dataclass(frozen=True)
class Fingerprint:
    """What identifies a sample.

    question: in lower case with single spaces. words: only its words and signs. digests: of its pictures' files.
    hashes: of its pictures, except plain surfaces. context: what was said before the question, and the system text.
    """

    id: str
    question: str
    words: str
    answer: str
    digests: tuple[str, ...]
    hashes: tuple[PictureHash, ...]
    context: str = ""


def fingerprint_example(example: Example, with_look_hashes: bool = True) -> Fingerprint:
    """The fingerprint of a sample. Pictures that are missing or cannot be read are left out."""
    found = [image for image in example.images if not isinstance(image, Path) or image.is_file()]
    hashes = [_try_hash(image) for image in found] if with_look_hashes else []
    question = " ".join(example.question.casefold().split())
    return Fingerprint(
        id=example.id,
        question=question,
        words=" ".join(_WORD.findall(question)),
        answer=example.answer,
        digests=tuple(content_digest(image) for image in found),
        hashes=tuple(one for one in hashes if one is not None),
        context=repr((example.system, example.history)) if example.system or example.history else "",
    )


def _try_hash(image: Any) -> PictureHash | None:
    try:
        return hash_picture(open_image(image))
    except RowError:
        return None


def hash_picture(picture: Any) -> PictureHash | None:
    """None for a plain surface, because all plain surfaces look the same."""
    grey = picture.convert("L")
    cells = np.asarray(grey.resize((9, 8)), dtype=np.int16)
    bits = (cells[:, 1:] > cells[:, :-1] + _MARGIN).flatten()
    small = np.asarray(picture.convert("RGB").resize((_SIDE, _SIDE)), dtype=np.float32)
    if small.std(axis=(0, 1)).max() < 1:  # less than one level of difference
        return None
    small = small.flatten() - small.mean()
    thumbnail = (small / np.linalg.norm(small)).astype(np.float16)
    return PictureHash(int("".join("01"[bit] for bit in bits.astype(int)), 2), thumbnail)


def find_repeats(samples: Sequence[Fingerprint]) -> Iterator[Duplicate]:
    """Samples with the same question, pictures and answer as an earlier one."""
    first: dict[Any, str] = {}
    for one in samples:
        key = (one.question, one.answer, one.digests, one.context)
        if (other := first.setdefault(key, one.id)) != one.id:
            yield Duplicate(one.id, other, "question")


def find_leaks(samples: Iterable[Fingerprint], tests: Sequence[Fingerprint], benchmark: str) -> Iterator[Duplicate]:
    """Samples with a picture or a question of the benchmark's test items; at most one Duplicate per sample."""
    pictures = {digest: other.id for other in tests for digest in other.digests}
    questions = {other.words: other for other in sorted(tests, key=lambda one: -len(one.digests))}
    index = _HashIndex([(picture, other.id) for other in tests for picture in other.hashes])
    for one in samples:
        same = next((pictures[digest] for digest in one.digests if digest in pictures), None)
        if same is not None:
            yield Duplicate(one.id, same, "picture", benchmark)
        elif (near := index.find_first_near(one.hashes)) is not None:
            yield Duplicate(one.id, near, "near_picture", benchmark)
        elif (other := questions.get(one.words)) is not None:
            kind = "question_only" if one.digests and other.digests else "question"
            yield Duplicate(one.id, other.id, kind, benchmark)


class _HashIndex:
    """Finds a near picture quickly.

    The bits are cut into one band more than bits may differ, so two near hashes have at least one equal band.
    """

    _BANDS = NEAR_BITS + 1

    def __init__(self, known: Sequence[tuple[PictureHash, str]]) -> None:
        self._by_band: dict[tuple[int, int], list[tuple[PictureHash, str]]] = defaultdict(list)
        for picture, identity in known:
            for band in self._split_into_bands(picture):
                self._by_band[band].append((picture, identity))

    def find_first_near(self, pictures: Iterable[PictureHash]) -> str | None:
        """The id of a known picture that is nearly the same as the first of these for which there is one."""
        return next((near for one in pictures if (near := self.find_near(one)) is not None), None)

    def find_near(self, picture: PictureHash) -> str | None:
        """The id of a known picture that is nearly the same."""
        for band in self._split_into_bands(picture):
            for other, identity in self._by_band.get(band, ()):
                if picture.is_near(other):
                    return identity
        return None

    def _split_into_bands(self, picture: PictureHash) -> list[tuple[int, int]]:
        width = -(-64 // self._BANDS)
        return [(k, (picture.bits >> (k * width)) & ((1 << width) - 1)) for k in range(self._BANDS)]
