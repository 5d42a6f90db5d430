"""Refuse splits that share samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from balanced_thinking.data.bad_rows import DataError
from balanced_thinking.data.example import Example


def assert_no_overlap(**splits: Iterable[Example]) -> None:
    """Raise DataError if two splits share an id, or a question about the same pictures (files, or bytes of a table).

    assert_no_overlap(train=train.examples, test=test.examples)
    """
    split_of_key: dict[int, str] = {}
    for name, examples in splits.items():
        for _ in refuse_overlap(examples, name, split_of_key):
            pass


def refuse_overlap(examples: Iterable[Example], name: str, split_of_key: dict[int, str]) -> Iterator[Example]:
    """Pass on the examples of a split; raise DataError for one that another split has, too.

    `split_of_key` maps what identifies an example to its split, and is extended with these examples.
    """
    for example in examples:
        for key in overlap_keys(example):
            other = split_of_key.setdefault(hash(key), name)
            if other != name:
                raise DataError(
                    f"splits {other!r} and {name!r} both contain {example.id!r}: {example.question[:80]!r}; expected "
                    "no common sample. Put the splits in separate files of one folder, or give each row a `split`. Or "
                    "set hash_split: true in data_options and in validation_options"
                )
        yield example


def overlap_keys(example: Example) -> Iterator[object]:
    """What identifies an example: its id, and its question about its pictures, where these are files or bytes."""
    yield example.id
    pictures = tuple(image if isinstance(image, Path) else getattr(image, "encoded", None) for image in example.images)
    if None not in pictures:
        said = (example.history,) if example.history else ()
        yield (example.question, pictures, *said)
