"""What to say about pictures: those of one color, and the option with which samples fit that are long by them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.data.example import Example
from balanced_thinking.data.images import image_size, open_image
from balanced_thinking.data.picture_files import UNREADABLE

_MOST_SIDE = 28  # pixels: of the square that one token of the Qwen-VL family stands for
# Values that one would try, from the one that changes least.
_CHOICES: dict[str, tuple[Any, ...]] = {
    "max_pixels": tuple(
        _MOST_SIDE**2 * tokens for tokens in (1280, 1024, 768, 512, 384, 256, 192, 128, 96, 64, 32, 16)
    ),
    "do_image_splitting": (False,),
    "max_patches": (9, 6, 4, 2, 1),
}
_LOOKED_AT = 300
_SLACK = 0.98  # of the length may be used: counts are without what a processor puts around a picture
_MAIN_SHARE = 0.5  # of a sample's tokens, from which on its pictures are what makes it long


def find_plain_pictures(examples: Sequence[Example]) -> tuple[str, ...]:
    """The ids of the samples with a picture of a single color, among the first 300 pictures: each must be decoded."""
    pairs = ((example.id, image) for example in examples for image in example.images)
    return tuple(dict.fromkeys(name for name, image in islice(pairs, _LOOKED_AT) if _is_plain(image)))


def _is_plain(image: Any) -> bool:
    try:
        bands = open_image(image).split()
    except RowError:  # named elsewhere
        return False
    return all(low == high for low, high in (band.getextrema() for band in bands))


class PictureOption(NamedTuple):
    """An image option with which samples fit. `samples` were too long without it, `longest` is the longest with it."""

    name: str
    value: Any
    samples: int
    longest: int


class _LongSample(NamedTuple):
    text_tokens: int
    sides: list[tuple[int, int]]  # height and width of each picture


def find_picture_option(
    examples: Sequence[Example], totals: Sequence[int], processor: Any, max_length: int | None
) -> PictureOption | None:
    """The option that changes least, of those with which all these samples fit; None where there is none.

    Looked at are samples longer than `max_length` of which pictures are the larger part. `totals` are tokens, pictures
    included. The processor is not changed.
    """
    options = getattr(getattr(processor, "image_processor", None), "valid_kwargs", None)
    names = [name for name in _CHOICES if name in getattr(options, "__annotations__", {})]
    if max_length is None or not names or not hasattr(processor, "_get_num_multimodal_tokens"):
        return None
    pairs = [pair for pair in zip(examples, totals, strict=True) if pair[0].images and pair[1] > max_length]
    long = list(_long_by_pictures(pairs, processor))
    if not long:
        return None
    for name, value in ((known, value) for known in names for value in _CHOICES[known]):
        longest = max(one.text_tokens + _count_tokens(processor, one.sides, {name: value}) for one in long)
        if longest <= _SLACK * max_length:
            return PictureOption(name, value, len(long), longest)
    return None


def _long_by_pictures(pairs: Sequence[tuple[Example, int]], processor: Any) -> Iterator[_LongSample]:
    for example, total in pairs:
        with suppress(RowError, *UNREADABLE):  # named elsewhere
            sides = [image_size(image)[::-1] for image in example.images]
            of_pictures = _count_tokens(processor, sides, {})
            if of_pictures >= _MAIN_SHARE * total:
                yield _LongSample(total - of_pictures, sides)


def _count_tokens(processor: Any, sides: list[tuple[int, int]], options: dict[str, Any]) -> int:
    return sum(processor._get_num_multimodal_tokens(image_sizes=sides, **options).num_image_tokens)
