"""A second opinion on the world as text, from a prompt and its reasoning alone.

It imports nothing of the world. English is read back into the small grammar of `solver`, which knows what is true.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.data.world import solver
from tests.data.world.solver import Board, Story, Tile

CELLS = dict(
    zip(
        (
            *("top left", "top middle", "top right", "middle left", "center", "middle right"),
            *("bottom left", "bottom middle", "bottom right"),
        ),
        solver.PLACES,
        strict=True,
    )
)
_SIDES = {"to the left of": "left of", "to the right of": "right of", "above": "above", "below": "below"}
_C, _TILE, _SIDE = "|".join(CELLS), r"(?:small|large) \w+ \w+|\w+ \w+", "|".join(_SIDES)
_FIELDS = {"c": _C, "d": _C, "t": _TILE, "u": _TILE, "r": _SIDE, "g": r"\w+ tiles?|\w+", "h": r"\w+ tiles?|\w+"}
_FIELDS |= {"n": r"\d+", "m": r"\d+", "o": r"\d+", "neg": "not ", "list": ".+"}
SWAP = re.compile(
    rf"Then the contents of the ({_C}) and the ({_C}) trade places\.|"
    rf"After that, the ({_C}) and the ({_C}) are swapped\.|"
    rf"Next, what is at the ({_C}) and what is at the ({_C}) change places\."
)
# Sentences that say nothing about the board. What they name is checked where it is the answer.
ASIDES = (
    "(?:Okay|Let me|Alright|First I|I start|Wait|Hmm|Good|Right|Yes|"
    r"Back to the question|Now again|To sum up|The question is)\b.*"
)
ANSWERS = r"(?:So it should be|That would give|So I would say|(?:So|Therefore,|The final) ?(?:the )?answer is) (\w+)\."
# English with fields in braces -> the small grammar. `[x|y|]` are words that may be there.
STATEMENTS = (
    ("The {c} has {a} {t}.|At the {c} there is {a} {t}.|In the {c} cell I see {a} {t}.", "{c} : {t}"),
    ("The {c} is empty.|There is nothing at the {c}.|Nothing is in the {c} cell.", "{c} : empty"),
    ("Counting the {g}: {list}.|For the {g}: {list}.|Going through the {g}: {list}.", "counting {g} : {list}"),
    (
        "There are no {g}, so that makes 0.|I find no {g}, which makes 0.|No {g} anywhere, so the count is 0.",
        "there are no {g} , that makes 0",
    ),
    (
        "The {t} at the {c} is {r} the {u} at the {d}.|The {t} ({c}) is {r} the {u} ({d}).",
        "the {t} at {c} is {r} the {u} at {d}",
    ),
    ("There is no {x} {y}.|I see no {x} {y} anywhere.|No {x} {y} is on the board.", "there is no {x} {y}"),
    (
        "I count {n} {g}, {neg}more than {m} {h}.|We have {n} {g}, which is {neg}more than {m} {h}.|"
        "Here are {n} {g}, {neg}more than {m} {h}.",
        "there are {n} {g} , {neg}more than {m} {h}",
    ),
    ("Its {x} is {y}.|So its {x} is {y}.|That tile has the {x} {y}.", "its {x} is {y}"),
    ("So the count is {n}.|That makes {n} in total.|The total is {n}.", "so there are {n}"),
    (
        "{n} is {neg}more than {m}.|So {n} is {neg}more than {m}.|Clearly, {n} is {neg}more than {m}.",
        "{n} is {neg}more than {m}",
    ),
    ("The {t} is at the {c}.|I find the {t} at the {c}.|The place of the {t} is the {c}.", "the {t} is at {c}"),
    (
        "The {x} digit is {n}, at the {c}.|The {x} digit at the {c} is {n}.|At the {c} I read the {x} digit {n}.",
        "the {x} digit is {n} at {c}",
    ),
    (
        "Directly {r} it is the {c}, with {a} {t}.|The cell {r} it is the {c}, which has {a} {t}.|"
        "One cell {r} it is the {c}, where I see {a} {t}.",
        "{r} it is {c} : {t}",
    ),
    ("{n} {x} {m} is {o}.|{n} {x} {m} makes {o}.|So {n} {x} {m} equals {o}.", "{n} {x} {m} is {o}"),
    (
        "All but one share {x}, and the odd one is {y}.|So {x} is the common one, and {y} is the odd one.|"
        "I see {x} everywhere except once, where it is {y}.",
        "all are {x} but one is {y}",
    ),
    (
        "Each {x} has one color.|Every {x} shows a single color.|So within a {x} the color stays the same.",
        "each {x} has one color",
    ),
    (
        "So the hidden color is {x}.|The question mark must hide {x}.|That means the hidden tile is {x}.",
        "so the hidden color is {x}",
    ),
    ("Option {x} is {y}.|So {y} is option {x}.|That is option {x}, {y}.", "option {x} is {y}"),
    ("Looking at them: {list}.|One by one: {list}.|In detail: {list}.", "{list}"),
)
QUESTIONS = (
    (
        "What is the {x} of the tile at the {c}?|Which {x} does the tile at the {c} have?|"
        "Look at the {c}. Tell me the {x} of that tile.",
        "what is the {x} of the tile at {c} ?",
    ),
    (
        "How many {g} are there?|What is the number of {g}?|Give me the number of {g} on the board.",
        "how many {g} are there ?",
    ),
    (
        "Are there more {g} than {h}?|Is the number of {g} larger than that of {h}?|Do the {g} outnumber the {h}?",
        "are there more {g} than {h} ?",
    ),
    (
        "What is the {x} of the tile directly {r} the {t}?|Which {x} does the tile directly {r} the {t} have?|"
        "Find the {t}. Tell me the {x} of the tile directly {r} it.",
        "what is the {x} of the tile {r} the {t} ?",
    ),
    (
        "What is the {x} digit {y} the {z} digit?|How much is the {x} digit {y} the {z} digit?|"
        "Take the {x} digit {y} the {z} digit. Give me the result.",
        "what is the {x} digit {y} the {z} digit ?",
    ),
    (
        "All tiles but one have the same {x}. Which {x} is the odd one out?|"
        "One tile has another {x} than all the others. Which {x} is it?|"
        "Only a single tile differs from the rest in its {x}. Name that {x}.",
        "which {x} is the odd one ?",
    ),
    (
        "Either each row or each column has a single color. Which color does the question mark hide?|"
        "The colors follow the rows or the columns. What is the color of the hidden tile?|"
        "Each row, or else each column, is of one color. Name the color of the tile that cannot be seen.",
        "which color has the question mark ?",
    ),
)


def _compile(table: tuple[tuple[str, str], ...]) -> list[tuple[re.Pattern[str], str]]:
    return [(_pattern(way), plain) for ways, plain in table for way in ways.split("|")]


def _pattern(way: str) -> re.Pattern[str]:
    text, seen = re.escape(way).replace(r"\{", "{").replace(r"\}", "}").replace(r"\ ", " "), set[str]()
    for name in re.findall(r"{(\w+)}", way):
        mark = "" if name not in ("neg",) else "?"
        group = f"(?P={name})" if name in seen else f"(?P<{name}>{_FIELDS.get(name, '[a-zA-Z]+')}){mark}"
        text = text.replace(f"{{{name}}}", group if name != "a" else "a", 1)
        seen |= {name}
    return re.compile(text)


_STATEMENTS, _QUESTIONS = _compile(STATEMENTS), _compile(QUESTIONS)


def to_small_grammar(sentence: str, table: list[tuple[re.Pattern[str], str]] = _STATEMENTS) -> str | None:
    """What an English sentence says; None if no way to say it is known."""
    for pattern, plain in table:
        if match := pattern.fullmatch(sentence):
            return plain.format(**{name: _word(name, word) for name, word in match.groupdict().items()})
    return None


def _word(name: str, word: str | None) -> str:
    if name == "list":
        word = re.sub(rf"the ({_C}) makes", lambda m: f"{CELLS[m[1]]} makes", word or "")
        word = re.sub(rf"(\w+) at the ({_C})", lambda m: f"{CELLS[m[2]]} is {m[1]}", word)
        return word.replace(", ", " , ")
    if name in "gh" and re.fullmatch(r"\w+ tile|cross|circle|square|triangle|diamond", word or ""):
        word = f"{word}es" if word == "cross" else f"{word}s"
    return CELLS.get(word or "", _SIDES.get(word or "", word or ""))


# The prompt


class Puzzle(NamedTuple):
    """What a prompt says: the board at the start, the swaps, and the question in the small grammar."""

    start: Board
    swaps: tuple[tuple[str, str], ...]
    question: str

    @property
    def board(self) -> Board:
        """The board that the question is about."""
        board = dict(self.start)
        for pair in self.swaps:
            board = swapped(board, pair)
        return board


def swapped(board: Board, pair: tuple[str, str]) -> Board:
    other = {pair[0]: pair[1], pair[1]: pair[0]}
    return {other.get(place, place): tile for place, tile in board.items()}


def read_swap(sentence: str) -> tuple[str, str] | None:
    """The places that a sentence exchanges; None if it says something else."""
    match = SWAP.fullmatch(sentence)
    first, second = filter(None, match.groups()) if match else ("", "")
    return (CELLS[first], CELLS[second]) if match else None


def _tile(words: str) -> Tile | None:
    plain = words.removeprefix("a ")
    if plain in ("nothing", "question mark"):
        return None if plain == "nothing" else Tile("")
    *size, color, what = plain.split()
    return Tile(color, what, *size) if size else Tile(color, digit=what)


def _listed(text: str) -> list[str]:
    return re.split(r", | and ", text)


def _read_line(sentence: str) -> dict[str, str]:
    """The places and tiles of one sentence of a description."""
    places = solver.PLACES
    if match := re.fullmatch(r"The (top|middle|bottom) row has (.+)\.", sentence):
        first = 3 * ("top", "middle", "bottom").index(match[1])
        return dict(zip(places[first : first + 3], _listed(match[2]), strict=True))
    if match := re.fullmatch(r"The (left|middle|right) column, from top to bottom, has (.+)\.", sentence):
        return dict(zip(places[("left", "middle", "right").index(match[1]) :: 3], _listed(match[2]), strict=True))
    if match := re.fullmatch(r"Row (\d), column (\d): (.+)\.", sentence):
        return {places[3 * int(match[1]) + int(match[2]) - 4]: match[3]}
    if match := re.fullmatch(rf"There is (.+) at the ({_C})\.", sentence):
        return {CELLS[match[2]]: match[1]}
    if match := re.fullmatch(r"Somebody laid out (.+)\.", sentence):
        return {CELLS[place]: words for words, place in re.findall(rf"(a [^(,]+) \(({_C})\)", match[1])}
    if re.fullmatch(r"The \w+ row is empty\.|.*\b(?:board|rest|All other cells)\b.*", sentence):
        return {}
    raise ValueError(f"not understood: {sentence!r}")


def split_sentences(text: str) -> list[str]:
    """Sentences end with a full stop; a reminder of the question also with a colon."""
    return re.split(r"(?<=[.:]) (?=[A-Z0-9])", text)


def read_prompt(prompt: str) -> Puzzle:
    """Raises ValueError for a prompt that is not understood."""
    told, asked, *options, hint = prompt.split("\n")
    board, swaps = dict[str, str](), []
    for sentence in split_sentences(told):
        if pair := read_swap(sentence):
            swaps.append(pair)
        else:
            board |= _read_line(sentence)
    question = to_small_grammar(asked.removeprefix("After these changes: "), _QUESTIONS)
    if question is None or not hint.startswith("Answer with ") or asked.startswith("After") != bool(swaps):
        raise ValueError(f"not understood: {prompt!r}")
    listed = " ".join(option.replace(".", "", 1) for option in options)
    tiles = {place: tile for place, words in board.items() if (tile := _tile(words)) is not None}
    return Puzzle(tiles, tuple(swaps), f"{question} {listed}".strip())


def solve(prompt: str) -> str:
    """The answer, from the prompt alone."""
    puzzle = read_prompt(prompt)
    found = [(answer, m) for form, answer in solver.QUESTIONS if (m := re.fullmatch(form, puzzle.question))]
    if len(found) != 1:
        raise ValueError(f"{len(found)} forms of question match {puzzle.question!r}")
    answer, match = found[0]
    return answer(puzzle.board, match)


# The reasoning


@dataclass
class Account:
    """What a piece of reasoning says: its statements with their truth, the answers that it names, and the rest."""

    statements: list[tuple[str, bool]] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def judge(prompt: str, think: str) -> Account:
    """Every statement against the board as it is at that point: it starts anew wherever the reasoning does."""
    puzzle, account = read_prompt(prompt), Account()
    board, swaps = dict(puzzle.start), list(puzzle.swaps)
    story = Story(board, puzzle.question)
    for sentence in split_sentences(think):
        if re.search(r"start again from the beginning|go back to the start", sentence):
            board, swaps = dict(puzzle.start), list(puzzle.swaps)
        elif answer := re.fullmatch(ANSWERS, sentence):
            account.answers.append(answer[1])
        elif pair := read_swap(sentence):
            if not swaps or swaps.pop(0) != pair:
                account.unknown.append(sentence)
            board = swapped(board, pair)
        elif (plain := to_small_grammar(sentence)) is not None:
            story.board = board
            account.statements.append((sentence, solver.is_true(story, plain)))
            story.told.append(plain)
        elif re.fullmatch(ASIDES, sentence):
            if sentence.startswith(("Back", "Now again", "To sum up")):
                board = puzzle.board  # a new start may have been left before its end
        else:
            account.unknown.append(sentence)
    return account
