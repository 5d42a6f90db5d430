"""Texts of 100 kB that are made to be slow: parser, scorers and readers of rows take time in proportion to them."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import pytest

from balanced_thinking.data.choices import to_choices
from balanced_thinking.data.places import place_images
from balanced_thinking.data.prose import split_prose
from balanced_thinking.data.tag_hints import find_tag_hint
from balanced_thinking.data.unread import is_base64_picture, refuse_unread_media
from balanced_thinking.data.values import RowProblemError, split_list_text, to_answers
from balanced_thinking.scoring.scorers import SCORERS
from balanced_thinking.segments import FORMATS, find_opened, parse, recognise_format
from tests.faults.attacks.attack import TookTooLong

CHARACTERS, SECONDS = 100_000, 0.5
UNITS = (
    *("<think>", "<think></think>", "</think>", "<answer>", "<think>a</think>", "<|channel|>", "**Answer", "(", "((a"),
    *(
        "[[",
        "]",
        "{",
        "}",
        "\\boxed{",
        "\\boxed{a}",
        "$",
        "$$",
        "$a$",
        "\\(",
        "\\frac{",
        "\\text{",
        "\\",
        "<",
        "</",
        ">",
    ),
    *(
        " ",
        "\n",
        " \n",
        "\t",
        "a ",
        "a\n",
        "\u00a0",
        "\u2028",
        "0",
        "9,",
        "9,999,",
        "1/",
        "-",
        "- ",
        "0.",
        "1e",
        "%",
        "e-",
    ),
    *('"', "' '", "A. ", "(A) ", "A) x\n", "a_", "=", "x=", "/", "#", "```", "<image>", "<image_1>", "<|image_pad|>"),
    *(
        "<video>",
        "<|vision_start|>",
        "the answer is ",
        "Answer:",
        "Therefore, ",
        "is ",
        ". The ",
        "a.",
        "Aa1 ",
        "é",
        "½",
    ),
)
ENDS = ("", "!", "\0", "</answer>", "]")


def _read_row(text: str) -> object:
    return [
        _call_quietly(lambda: place_images([text], 1)),
        _call_quietly(lambda: refuse_unread_media({}, {"image": text, text[:9]: text}, False)),
        _call_quietly(lambda: to_choices(text)),
        _call_quietly(lambda: to_answers([text, "[" + text])),
        split_list_text("[" + text[:60_000] + "]"),
        is_base64_picture("iVBORw0KGgo" + text),
        split_prose(text),
        find_tag_hint(text),
    ]


def _call_quietly(call: Callable[[], object]) -> object:
    try:
        return call()
    except RowProblemError as error:
        return error


# What reads a text.
READERS: dict[str, Callable[[str], object]] = {
    "rows": _read_row,
    "recognise": recognise_format,
    "opened": find_opened,
    **{f"parse {name}": lambda text, name=name: parse(text, name) for name in (*FORMATS, "auto")},  # type: ignore[misc]
    **{f"score {name}": lambda text, score=score: score(text, "12.5") for name, score in SCORERS.items()},  # type: ignore[misc]
}


@contextmanager
def limit_seconds(seconds: float) -> Iterator[None]:
    def stop(_: int, __: FrameType | None) -> None:
        raise TookTooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def find_slow_texts(
    reader: Callable[[str], object], characters: int, seconds: float, ends: tuple[str, ...] = ENDS
) -> list[str]:
    slow = []
    for unit in UNITS:
        for end in ends:
            started = time.process_time()
            try:
                with limit_seconds(10 * seconds):  # of the clock, on a machine that has more to do
                    reader((unit * (characters // len(unit) + 1))[:characters] + end)
            except TookTooLong:
                slow.append(f"{unit!r}...{end!r}: not ended")
                continue
            if (took := time.process_time() - started) > seconds:
                slow.append(f"{unit!r}...{end!r}: {took:.2f} s")
    return slow


@pytest.mark.faults
@pytest.mark.parametrize("name", READERS)
def test_no_text_of_100_kb_is_slow(name: str) -> None:
    assert not find_slow_texts(READERS[name], CHARACTERS, SECONDS)


@pytest.mark.parametrize("name", ["rows", "parse auto", "score exact", "score numeric"])
def test_no_text_of_10_kb_is_slow(name: str) -> None:
    assert not find_slow_texts(READERS[name], CHARACTERS // 10, SECONDS / 5, ends=("!",))
