"""A second opinion on the embedded world, from a picture's pixels and a question's text alone.

`solve` answers questions, `falsehoods` finds the sentences of a text that the picture does not bear out. Neither
imports the world: words, colors and grammar are written down again here, so that an error there can't hide itself.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

CELL_PIXELS, MARGIN_PIXELS = 28, 3  # the margin hides grid lines and frame
LARGE_PIXELS = 17  # a small tile is about 12 pixels wide, a large one 22
PAPER = np.array((246, 246, 242))
INKS = {"red": (210, 40, 40), "green": (50, 160, 50), "blue": (30, 90, 200), "yellow": (230, 200, 20)}
INKS |= {"purple": (150, 70, 190), "": (60, 60, 60)}
SHAPES = ("circle", "square", "triangle", "diamond", "cross")
GLYPHS = "0123456789?"
PLACES = ("northwest", "north", "northeast", "west", "center", "east", "southwest", "south", "southeast")
TOWARDS = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}


class Tile(NamedTuple):
    """What a cell shows; the hidden tile of a pattern has no color."""

    color: str
    shape: str = ""
    size: str = ""
    digit: str = ""

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.size, self.color, self.shape, self.digit))) or "question mark"


Board = dict[str, Tile]  # by place; empty cells are left out


# Reading the picture


def read(image: Image.Image) -> Board:
    """The board that an RGB picture of 84 x 84 pixels shows."""
    pixels = np.asarray(image)
    inner = CELL_PIXELS - MARGIN_PIXELS
    cells = {}
    for i, place in enumerate(PLACES):
        top, left = CELL_PIXELS * (i // 3), CELL_PIXELS * (i % 3)
        cell = pixels[top + MARGIN_PIXELS : top + inner, left + MARGIN_PIXELS : left + inner]
        if tile := _recognise(cell.tobytes()):
            cells[place] = tile
    return cells


@cache
def _recognise(cell: bytes) -> Tile | None:
    side = CELL_PIXELS - 2 * MARGIN_PIXELS
    pixels = np.frombuffer(cell, dtype=np.uint8).reshape(side, side, 3).astype(int)
    contrast_HW = np.abs(pixels - PAPER).sum(axis=2)
    if contrast_HW.max() < 100:
        return None
    ink = pixels.reshape(-1, 3)[contrast_HW.argmax()]
    color = min(INKS, key=lambda name: int(((ink - INKS[name]) ** 2).sum()))
    mask_HW = _trim(contrast_HW > contrast_HW.max() / 2)
    height, width = mask_HW.shape
    if width < 0.85 * height:  # shapes are as wide as high, digits are not
        glyph = _glyph(mask_HW)
        return Tile(color, digit="" if glyph == "?" else glyph)
    return Tile(color, _shape(mask_HW), "large" if width > LARGE_PIXELS else "small")


def _trim(mask_HW: np.ndarray) -> np.ndarray:
    rows, columns = mask_HW.nonzero()
    return mask_HW[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def _shape(mask_HW: np.ndarray) -> str:
    """By the share of its box that it fills (square 1, circle 0.79, others about 0.5), then by its rows' widths."""
    fill, widths_H = mask_HW.mean(), mask_HW.mean(axis=1)
    if fill > 0.65:
        return "square" if fill > 0.9 else "circle"
    if widths_H[-1] > 0.8:
        return "triangle"
    return "cross" if widths_H[int(0.3 * len(widths_H))] < 0.45 else "diamond"


def _glyph(mask_HW: np.ndarray) -> str:
    drawn = _standard(mask_HW)
    return min(GLYPHS, key=lambda glyph: float(np.abs(drawn - _template(glyph)).sum()))


@cache
def _template(glyph: str) -> np.ndarray:
    image = Image.new("L", (120, 120))
    ImageDraw.Draw(image).text((60, 60), glyph, fill=255, anchor="mm", font_size=90, stroke_width=3, stroke_fill=255)
    return _standard(_trim(np.asarray(image) > 127))


def _standard(mask_HW: np.ndarray) -> np.ndarray:
    """The mask as grey values from 0 to 1 in a box of one size."""
    return np.asarray(Image.fromarray(mask_HW.astype(np.uint8) * 255).resize((12, 18), Image.Resampling.BOX)) / 255


# What is true of a board


def _at(place: str) -> np.ndarray:
    row = 0 if place.startswith("north") else 2 if place.startswith("south") else 1
    return np.array((row, 0 if place.endswith("west") else 2 if place.endswith("east") else 1))


def _next_to(relation: str, place: str) -> str | None:
    """The neighbouring place in that direction, None beyond the edge."""
    wanted = _at(place) + TOWARDS[relation]
    return next((other for other in PLACES if (_at(other) == wanted).all()), None)


def _name(board: Board, place: str) -> str:
    return board[place].name if place in board else "empty"


def _members(board: Board, group: str) -> list[str]:
    """Places of `red tiles`, `large tiles` or `crosses`."""
    word, *tiles = group.split()
    if tiles:
        return [place for place, tile in board.items() if word in (tile.color, tile.size)]
    shape = "cross" if word == "crosses" else word.removesuffix("s")
    return [place for place, tile in board.items() if tile.shape == shape]


def _only(found: Sequence[str]) -> str:
    if len(found) != 1:
        raise ValueError(f"expected one reading, found {list(found)}")
    return found[0]


def _nouns(board: Board) -> set[tuple[str, str]]:
    return {(tile.color, tile.shape) for tile in board.values()}


def _anchor(board: Board, noun: str) -> str:
    return _only([place for place, tile in board.items() if f"{tile.color} {tile.shape}" == noun])


def _digit(board: Board, color: str) -> int:
    return int(_only([tile.digit for tile in board.values() if tile.digit and tile.color == color]))


def _odd(board: Board, attribute: str) -> str:
    values = Counter(getattr(tile, attribute) for tile in board.values())
    if len(values) != 2:
        raise ValueError(f"all but one should share their {attribute}, found {dict(values)}")
    return _only([value for value, count in values.items() if count == 1])


def _line(board: Board, place: str, axis: int) -> list[str]:
    """The other tiles of a place's row (axis 0) or column (axis 1)."""
    return [other for other in board if other != place and _at(other)[axis] == _at(place)[axis]]


def _question_mark(board: Board) -> str:
    return _only([place for place, tile in board.items() if not tile.color])


def _same_colored(board: Board, axis: int) -> bool:
    """Whether every row (axis 0) or column (axis 1) shows one color, the hidden tile left out."""
    hidden = _question_mark(board)
    seen = {(int(_at(place)[axis]), tile.color) for place, tile in board.items() if place != hidden}
    return len(seen) == len({line for line, _ in seen})


def _hidden_color(board: Board) -> str:
    lines = [_line(board, _question_mark(board), axis) for axis in (0, 1) if _same_colored(board, axis)]
    return _only(sorted({board[place].color for line in lines for place in line}))


# Answering

_ATTRIBUTE = "(?P<attribute>color|shape|size)"
_WHERE = rf"(?:at (?P<place>\w+)|(?P<relation>{'|'.join(TOWARDS)}) the (?P<anchor>\w+ \w+))"
_COLOR, _SHAPE = "|".join(filter(None, INKS)), "|".join(SHAPES)
_GROUP = rf"(?:{_COLOR}|small|large) tiles|(?:{_SHAPE})e?s"
_MORE = rf"(?P<first>{_GROUP}) {{}} (?P<second>{_GROUP})"
_SUM = r"(?P<first>\w+) digit (?P<operation>plus|minus) (?:the )?(?P<second>\w+) digit"


def _attribute_of(board: Board, ask: re.Match[str]) -> str:
    place = ask["place"] or _next_to(ask["relation"], _anchor(board, ask["anchor"]))
    if place not in board:
        raise ValueError(f"the question asks about an empty cell or beyond the edge: {ask.string!r}")
    value = getattr(board[place], ask["attribute"])
    options = dict(re.findall(r"([A-D]) (\w+)", ask["options"]))
    return _only([letter for letter, option in options.items() if option == value]) if options else value


def _count(board: Board, ask: re.Match[str]) -> str:
    return str(len(_members(board, ask["group"])))


def _compare(board: Board, ask: re.Match[str]) -> str:
    return "yes" if len(_members(board, ask["first"])) > len(_members(board, ask["second"])) else "no"


def _arithmetic(board: Board, ask: re.Match[str]) -> str:
    second = _digit(board, ask["second"])
    return str(_digit(board, ask["first"]) + (second if ask["operation"] == "plus" else -second))


QUESTIONS: tuple[tuple[str, Callable[[Board, re.Match[str]], str]], ...] = (
    (rf"what is the {_ATTRIBUTE} of the tile {_WHERE} \?(?P<options>.*)", _attribute_of),
    (rf"which {_ATTRIBUTE} has the tile {_WHERE} \?(?P<options>.*)", _attribute_of),
    (rf"look {_WHERE} : which {_ATTRIBUTE} is there \?(?P<options>.*)", _attribute_of),
    (rf"{_WHERE} there is a tile of what {_ATTRIBUTE} \?(?P<options>.*)", _attribute_of),
    (rf"(?:there are )?how many (?P<group>{_GROUP})(?: are there)? \?", _count),
    (rf"(?:what is )?the number of (?P<group>{_GROUP})(?: is what)? \?", _count),
    (rf"(?:are there )?more {_MORE.format('than')}(?: , yes or no)? \?", _compare),
    (rf"is the number of {_MORE.format('more than of')} \?", _compare),
    (rf"are {_MORE.format('more in number than')} \?", _compare),
    (rf"(?:look at the digits : |what is the |the )?{_SUM}(?: makes what| is what)? \?", _arithmetic),
    (rf"all tiles but one have the same {_ATTRIBUTE} , which is the odd one \?", lambda b, m: _odd(b, m["attribute"])),
    (rf"which {_ATTRIBUTE} is the odd one \?", lambda b, m: _odd(b, m["attribute"])),
    (rf"one tile is the odd one , what is the {_ATTRIBUTE} \?", lambda b, m: _odd(b, m["attribute"])),
    (rf"the odd one has which {_ATTRIBUTE} \?", lambda b, m: _odd(b, m["attribute"])),
    (r"which color has the question mark \?|what is the color of the hidden tile \?", lambda b, _: _hidden_color(b)),
    (r"the hidden tile has which color \?", lambda b, _: _hidden_color(b)),
    (r"look at the question mark : what is the color \?", lambda b, _: _hidden_color(b)),
)


def solve(image: Image.Image, question: str) -> str:
    """The answer; ValueError where the question is not understood or has no single answer."""
    text = question.removesuffix(" answer at once .")
    readings = [(answer, match) for form, answer in QUESTIONS if (match := re.fullmatch(form, text))]
    if len(readings) != 1:
        raise ValueError(f"{len(readings)} forms of question match {question!r}")
    answer, match = readings[0]
    return answer(read(image), match)


# Checking sentences


@dataclass
class Story:
    """A board, the question asked about it, and the sentences so far, all true."""

    board: Board
    question: str
    told: list[str] = field(default_factory=list)

    def before(self, back: int = 1) -> str:
        return self.told[-back] if len(self.told) >= back else ""


def _holds(s: Story, m: re.Match[str]) -> bool:
    apart = _at(m["p"]) - _at(m["q"])
    return _name(s.board, m["p"]) == m["t"] and _name(s.board, m["q"]) == m["u"] and apart @ TOWARDS[m["r"]] > 0


def _counts_up(s: Story, m: re.Match[str]) -> bool:
    steps = re.findall(r"(\w+) makes (\d+)", m["steps"])
    numbered = [int(number) for _, number in steps] == list(range(1, len(steps) + 1))
    return numbered and sorted(place for place, _ in steps) == sorted(_members(s.board, m["g"]))


def _compares(s: Story, m: re.Match[str]) -> bool:
    first, second = len(_members(s.board, m["g"])), len(_members(s.board, m["h"]))
    return (int(m["n"]), int(m["m"])) == (first, second) and (first > second) != bool(m["neg"])


def _total(sentence: str) -> str:
    return sentence.rpartition(" makes ")[2]


def _its(s: Story, m: re.Match[str]) -> bool:
    cell = re.fullmatch(r"(?:.* it is )?(\w+) : .*", s.before())
    return cell is not None and getattr(s.board.get(cell[1]), m["a"], "") == m["v"]


def _neighbour(s: Story, m: re.Match[str]) -> bool:
    anchor = re.fullmatch(r"the .* is at (\w+)", s.before())
    beside = anchor is not None and _next_to(m["r"], anchor[1]) == m["p"]
    return beside and _name(s.board, m["p"]) == (m["t"] or "empty")


def _digits_add(s: Story, m: re.Match[str]) -> bool:
    told = [re.fullmatch(r"the \w+ digit is (\d) at \w+", s.before(back)) for back in (2, 1)]
    n, k = int(m["n"]), int(m["k"])
    return [d and d[1] for d in told] == [m["n"], m["k"]] and int(m["o"]) == (n + k if m["op"] == "plus" else n - k)


def _lists(s: Story, m: re.Match[str]) -> bool:
    """Either every tile's odd attribute, or the colors of the hidden tile's line; each must be complete."""
    said = re.findall(r"(\w+) is (\w+)", m["steps"])
    rule = re.fullmatch(r"each (row|column) has one color", s.before())
    line = _line(s.board, _question_mark(s.board), int(rule[1] == "column")) if rule else list(s.board)
    complete = sorted(place for place, _ in said) == sorted(line)
    return complete and all(value in (s.board[place].color, s.board[place].shape) for place, value in said)


def _option(s: Story, m: re.Match[str]) -> bool:
    return f" {m['o']} {m['v']} " in f"{s.question} " and s.before().endswith(f" is {m['v']}")


def _exceeds(s: Story, m: re.Match[str]) -> bool:
    followed = [_total(s.before(2)), _total(s.before())] == [m["n"], m["m"]]
    return followed and (m["n"] > m["m"]) != bool(m["neg"])


def _all_but_one(s: Story, m: re.Match[str]) -> bool:
    values = Counter(value for _, value in re.findall(r"(\w+) is (\w+)", s.before()))
    return values == {m["v"]: len(s.board) - 1, m["w"]: 1}


Check = Callable[[Story, re.Match[str]], bool]
P, Q = f"(?P<p>{'|'.join(PLACES)})", f"(?P<q>{'|'.join(PLACES)})"
T, U = (rf"(?P<{x}>(?:small|large) \w+ \w+|\w+ \d|question mark)" for x in "tu")
G, H = (rf"(?P<{x}>{_GROUP})" for x in "gh")
R = f"(?P<r>{'|'.join(TOWARDS)})"
SENTENCES: tuple[tuple[str, Check], ...] = (
    (rf"{P} : (?:{T}|empty)", lambda s, m: _name(s.board, m["p"]) == (m["t"] or "empty")),
    (rf"the {T} at {P} is {R} the {U} at {Q}", _holds),
    (rf"there is no (?P<c>{_COLOR}) (?P<v>{_SHAPE})", lambda s, m: (m["c"], m["v"]) not in _nouns(s.board)),
    (rf"counting {G} : (?P<steps>\w+ makes \d(?: , \w+ makes \d)*)", _counts_up),
    (rf"there are no {G} , that makes 0", lambda s, m: not _members(s.board, m["g"])),
    (rf"there are (?P<n>\d) {G} , (?P<neg>not )?more than (?P<m>\d) {H}", _compares),
    (r"so there are (?P<n>\d)", lambda s, m: _total(s.before()) == m["n"]),
    (r"(?P<n>\d) is (?P<neg>not )?more than (?P<m>\d)", _exceeds),
    (r"its (?P<a>color|shape|size) is (?P<v>\w+)", _its),
    (rf"the (?P<t>\w+ [a-z]+) is at {P}", lambda s, m: _anchor(s.board, m["t"]) == m["p"]),
    (rf"the question mark is at {P}", lambda s, m: _question_mark(s.board) == m["p"]),
    (rf"{R} it is {P} : (?:{T}|empty)", _neighbour),
    (rf"the (?P<c>\w+) digit is (?P<n>\d) at {P}", lambda s, m: _name(s.board, m["p"]) == f"{m['c']} {m['n']}"),
    (r"(?P<n>\d) (?P<op>plus|minus) (?P<k>\d) is (?P<o>\d+)", _digits_add),
    (rf"(?P<steps>(?:{'|'.join(PLACES)}) is [a-z]+(?: , \w+ is [a-z]+)*)", _lists),
    (r"all are (?P<v>\w+) but one is (?P<w>\w+)", _all_but_one),
    (r"each (?P<l>row|column) has one color", lambda s, m: _same_colored(s.board, int(m["l"] == "column"))),
    (r"so the hidden color is (?P<v>\w+)", lambda s, m: _hidden_color(s.board) == m["v"]),
    (r"option (?P<o>[A-D]) is (?P<v>\w+)", _option),
    (r"the question : (?P<asked>.+)", lambda s, m: m["asked"] == s.question.replace(" ?", "")),
)


def falsehoods(image: Image.Image, text: str, question: str = "") -> list[str]:
    """The sentences that are untrue of the picture, do not follow from those before, or have no known form."""
    if not text.endswith(" ."):
        return [text]
    story, wrong = Story(read(image), question), []
    for sentence in text.removesuffix(" .").split(" . "):
        if not is_true(story, sentence):
            wrong.append(sentence)
        story.told.append(sentence)
    return wrong


def is_true(story: Story, sentence: str) -> bool:
    """Whether the sentence has a known form, is true of the story's board, and follows from what was told before."""
    return any(_true(story, sentence, form, check) for form, check in SENTENCES)


def form_of(sentence: str) -> str:
    """The first form of `SENTENCES` that the sentence has; empty for none."""
    return next((form for form, _ in SENTENCES if re.fullmatch(form, sentence)), "")


def _true(story: Story, sentence: str, form: str, check: Check) -> bool:
    match = re.fullmatch(form, sentence)
    try:
        return match is not None and check(story, match)
    except ValueError:  # it speaks of the only one of its kind where there are several, or none
        return False
