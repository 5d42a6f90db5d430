"""What strangers' texts look like in our messages."""

from __future__ import annotations

import pytest

from balanced_thinking.system.text import list_some, shorten_text


@pytest.mark.parametrize(
    ("texts", "between", "expected"),
    [
        ((), ", ", ""),
        (("a",), ", ", "a"),
        (("a", "b"), ", ", "a, b"),
        (("a", "b", "c"), ", ", "a, b and 1 more"),
        (("a", "b", "c", "d"), "; ", "a; b and 2 more"),
    ],
)
def test_the_first_texts_and_how_many_more(texts: tuple[str, ...], between: str, expected: str) -> None:
    assert list_some(texts, 2, between) == expected


def test_a_long_text_keeps_its_start_and_its_end() -> None:
    assert shorten_text("a" * 8, 8) == "a" * 8
    assert shorten_text("aaaaaaXXXXbb", 8) == "aaaaaa [... 4 characters ...] bb"
