"""A second opinion on traces whose wording, truth or end differs from the plain ones, from their text alone.

`plain_sentences` says varied wordings as `solver` knows them, `untrue` finds false sentences by the picture, and
`conclude` draws the answer from what a trace says. The world is not imported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache

from PIL import Image

from tests.data.world import solver

_P = f"({'|'.join(solver.PLACES)})"
_T = r"((?:small|large) \w+ \w+|\w+ \d|question mark)"
_R = f"({'|'.join(solver.TOWARDS)})"
_NOT = r"((?:not )?more than)"
# Another wording -> the one that `solver` reads.
_PLAIN: tuple[tuple[str, str], ...] = (
    (rf"{_P} has a {_T}", r"\1 : \2"),
    (rf"at {_P} : {_T}", r"\1 : \2"),
    (rf"{_P} (?:is empty|has no tile)", r"\1 : empty"),
    (r"(?:the number of|how many) (.+) : (.* makes .*)", r"counting \1 : \2"),
    (r"no (\w+(?: tiles)?) are there , that makes 0", r"there are no \1 , that makes 0"),
    (r"counting (\w+(?: tiles)?) : that makes 0", r"there are no \1 , that makes 0"),
    (rf"at {_P} the {_T} is {_R} (the .*)", r"the \2 at \1 is \3 \4"),
    (rf"a {_T} at {_P} is {_R} a (.*)", r"the \1 at \2 is \3 the \4"),
    (r"no (\w+ \w+) is there", r"there is no \1"),
    (r"a (\w+ \w+) is not there", r"there is no \1"),
    (rf"(\d .+) are there , {_NOT} (.*)", r"there are \1 , \2 \3"),
    (rf"the (\d .+) are {_NOT} the (.*)", r"there are \1 , \2 \3"),
    (r"(?:look at|once more) the question : (.*)", r"the question : \1"),
    (r"the (color|shape|size) of it is (\w+)", r"its \1 is \2"),
    (r"it has the (color|shape|size) (\w+)", r"its \1 is \2"),
    (r"(?:there are|so the number is) (\d)", r"so there are \1"),
    (rf"(?:so|the number) (\d) is {_NOT} (\d)", r"\1 is \2 \3"),
    (rf"at {_P} is the (.+)", r"the \2 is at \1"),
    (rf"look at {_P} : the (.+)", r"the \2 is at \1"),
    (rf"(?:look at )?the (\w+) digit : (\d) at {_P}", r"the \1 digit is \2 at \3"),
    (rf"{_R} it {_P} has a (.+)", r"\1 it is \2 : \3"),
    (rf"{_R} it at {_P} : (.+)", r"\1 it is \2 : \3"),
    (r"so (\d \w+ \d is \d+)", r"\1"),
    (r"(\d \w+ \d) makes (\d+)", r"\1 is \2"),
    (r"so (all are \w+ but one is \w+)", r"\1"),
    (r"each (row|column) is of one color", r"each \1 has one color"),
    (r"all tiles in a (row|column) have one color", r"each \1 has one color"),
    (r"the hidden color is (\w+)", r"so the hidden color is \1"),
    (r"so the hidden tile is (\w+)", r"so the hidden color is \1"),
    (r"so (option [A-D] is \w+)", r"\1"),
    (r"(\w+) is (option [A-D])", r"\2 is \1"),
    (rf"(?:look|the tiles) : ({_P} is .*)", r"\1"),
)
# What states the answer of a question; "its color is red" does not where a letter is asked for.
_CONCLUSIONS = (
    r"its \w+ is \w+|so there are \d|\d is (?:not )?more than \d|\d \w+ \d is \d+|all are \w+ but one is \w+|"
    r"so the hidden color is \w+|option [A-D] is \w+"
)


def plain_sentences(text: str) -> list[str]:
    """The text's sentences, each in the wording that `solver` knows; one in an unknown wording is unchanged."""
    assert text.endswith(" ."), text
    return [_plain(sentence) for sentence in text.removesuffix(" .").split(" . ")]


@cache
def _plain(sentence: str) -> str:
    for form, plain in _PLAIN:
        if match := re.fullmatch(form, sentence):
            return match.expand(plain)
    return sentence


def fits(way: str, sentence: str) -> bool:
    """Whether a sentence is said in this way, a template with fields in braces."""
    return re.fullmatch(re.sub(r"\{\w+\}", ".+", way), sentence) is not None


def states_the_answer(sentence: str, question: str) -> bool:
    """Whether a plain sentence has the form of a last step."""
    letter = " A " in question
    return bool(re.fullmatch(_CONCLUSIONS, sentence)) and not (letter and sentence.startswith("its "))


def untrue(image: Image.Image, sentences: Sequence[str], question: str, steps: Sequence[str]) -> list[str]:
    """The plain sentences that are untrue of the picture.

    `steps` are the true steps to the answer: what "it" is in a step, and what it sums up, comes from those, because
    the steps before it in the text may be false themselves.
    """
    board = solver.read(image)
    start = next((i for i, sentence in enumerate(sentences) if sentence.startswith("the question : ")), None)
    assert start is not None, sentences
    stories = [solver.Story(board, question) for _ in sentences[: start + 1]]
    stories += [solver.Story(board, question, list(steps[:i])) for i in range(len(sentences) - start - 1)]
    return [s for s, story in zip(sentences, stories, strict=True) if not solver.is_true(story, s)]


def conclude(sentences: Sequence[str], question: str) -> str:
    """The answer that follows from the plain sentences, the later ones first, whether they are true or not.

    Empty where they do not say what the question needs.
    """
    ((seen, match),) = [(seen, m) for form, seen in solver.QUESTIONS if (m := re.fullmatch(form, question))]
    try:
        return _DRAWN.get(seen, _listed)(list(reversed(sentences)), match)
    except LookupError:
        return ""


def _first(sentences: Sequence[str], form: str) -> re.Match[str]:
    match = next(filter(None, (re.fullmatch(form, sentence) for sentence in sentences)), None)
    if match is None:
        raise LookupError(form)
    return match


def _named(sentences: Sequence[str], m: re.Match[str]) -> str:
    tile = _first(sentences, rf".* it is {_P} : {_T}" if m["relation"] else rf"({m['place']}) : {_T}")[2].split()
    value = tile[{"size": -3, "color": -2, "shape": -1}[m["attribute"]]]
    return {v: k for k, v in re.findall(r"([A-D]) (\w+)", m["options"])}.get(value, value)


def _counted(sentences: Sequence[str], group: str) -> int:
    return int(_first(sentences, rf"(?:counting {group} : .*|there are no {group} , that) makes (\d)")[1])


def _more(sentences: Sequence[str], m: re.Match[str]) -> str:
    return "yes" if _counted(sentences, m["first"]) > _counted(sentences, m["second"]) else "no"


def _sum(sentences: Sequence[str], m: re.Match[str]) -> str:
    a, b = (int(_first(sentences, rf"the {m[c]} digit is (\d) at \w+")[1]) for c in ("first", "second"))
    return str(a + b if m["operation"] == "plus" else a - b)


def _listed(sentences: Sequence[str], _: re.Match[str]) -> str:
    """The value that is listed only once, or that every one of the hidden tile's line has."""
    values = re.findall(r"is (\w+)", _first(sentences, r"\w+ is \w+(?: , \w+ is \w+)*")[0])
    return min(values, key=values.count)


_DRAWN: dict[Callable[[solver.Board, re.Match[str]], str], Callable[[Sequence[str], re.Match[str]], str]] = {
    solver._attribute_of: _named,
    solver._count: lambda sentences, m: str(_counted(sentences, m["group"])),
    solver._compare: _more,
    solver._arithmetic: _sum,
}
