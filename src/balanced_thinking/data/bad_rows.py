"""Bad rows: the problems by name, the rows that have them, and the table that shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from balanced_thinking import segments
from balanced_thinking.config.errors import BalancedThinkingError, UsageError
from balanced_thinking.data.tag_hints import find_row_hint

PROBLEMS: dict[str, str] = {
    "invalid_json": "the row is not valid JSON in UTF-8",
    "not_utf8": "the row is not UTF-8: save the file as UTF-8",
    "invalid_csv": "more cells than columns, or a quote without its end: put texts with commas in double quotes",
    "not_an_object": "the row is valid JSON, but not an object in braces",
    "too_deep": "brackets inside each other more than 200 levels deep: leave the row out",
    "too_many_values": "more keys, turns, images or options than are read: 10,000 of each",
    "unknown_schema": "expected question + answer, prompt + completion, messages or conversations; name other columns "
    "with --data_options.columns '{question: NAME, answer: NAME}'",
    "multi_turn": "turns of user and assistant must alternate, the user's first and the assistant's last: cut the rest",
    "two_systems": "the row has two different system texts: leave one out",
    "not_text": "expected text or a number: for true and false write the word that the model should say, such as yes",
    "not_finite": "an infinite number: write the text that is meant, or leave the value out",
    "null_choice": "an option is null: write its text; only at the end of the options null is left out",
    "tag_in_text": "a tag of a reasoning format in the reasoning or the answer: it would be read as their border, or "
    "trained on as text: take it off, as is done with one pair around each",
    "unread_media": "video and audio are not read: leave the row out",
    "no_question": "the question is empty",
    "image_count": "the number of <image> placeholders in the question differs from the number of images",
    "unknown_placeholder": "an unknown tag beside the placeholder of a picture would stay in the question: take it off",
    "remote_image": "images are read from local files only: download it and give its path, or allow it (allow_urls)",
    "unfetched_image": "the image at this web address was not fetched; the message says why",
    "missing_image": "no such file; relative paths start at the option image_root (default: the folder of the data)",
    "broken_image": "the image is not the path of a complete PNG, JPEG, WebP, BMP, GIF or TIFF picture",
    "picture_refused": "the model's image processor does not take a picture of this size: change it or leave it out",
    "unread_image": "the row has a picture under a name that is not read: call that column image or images, or name it "
    "with --data_options.columns '{image: NAME}'",
    "unfilled_place": "a place in a picture is not filled in: write its coordinates and its name into the texts",
    "not_for_training": "the data mark the reply as not to be trained on: leave the row out",
    "joined_samples": "a sample has several rows, because WebDataset ends its name at the first dot: write another "
    "character for it in the files' names",
    "duplicate_id": "an earlier row has the same id",
    "answer_not_in_choices": "the answer is neither a choice nor its letter: write one of these, not a position",
    "text_only_model": "the row has a picture, but the model takes text only: choose a vision-language model",
    "unusable": "the row cannot be trained on; its message says why",
    "template_changes": "the chat template changes, drops or doubles part of the row: in training set another "
    "(chat_template_path), or its variables (chat_template_kwargs)",
    "template_refuses": "the chat template does not take the row's roles or texts; the message has its words",
    "prompt_mismatch": "the chat template's prompt for generation is not that before an answer: set another "
    "template, or in training its variables (chat_template_kwargs)",
    "special_token": "a special token of the model stands in a text and would not be read as text: write it otherwise",
    "no_end_token": "the chat template ends the turn without a token that generation stops at: set eos_token",
    "reasoning_twice": "the row has reasoning in two places, or in one that the reasoning_format does not have",
    "too_long": "the sample has more tokens than max_length: raise it, or set overflow to drop or trim_think",
    "lone_surrogate": "half of a surrogate pair: the text cannot be written as UTF-8",
    **segments.PROBLEMS,
}
_SHOWN_ROWS = 20
_SHOWN_CHARACTERS = 60
_MOST_KEPT, _MOST_KEPT_ID = 20_000, 400  # characters of a text and of an id
_FULL_CHARACTERS = 360  # of the first row with a problem


class DataError(BalancedThinkingError, ValueError):
    """Data that cannot be loaded: see its kinds."""


class UnknownDataError(UsageError, DataError):
    """A data set, a split or an option that does not exist."""


class RowError(DataError):
    """A row that cannot be trained on. The message names the row and says how to fix it.

    `problem` is a key of `PROBLEMS`; `shown` is the text with the problem, for a table, by default the message.
    """

    def __init__(self, message: str, problem: str = "unusable", shown: str = "") -> None:
        self.problem, self.shown = problem, shown or message
        super().__init__(message)


@dataclass(frozen=True)
class BadRow:
    """A row that cannot become an Example.

    row: its line, or its position in a JSON array, from 1. problems: keys of `PROBLEMS`. text: the text with the
    problem, of which a very long one is cut in its middle: a million bad rows must fit into memory.
    """

    row: int
    problems: tuple[str, ...]
    text: str
    id: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", _cut_middle(self.text, _MOST_KEPT))
        object.__setattr__(self, "id", None if self.id is None else _cut_middle(self.id, _MOST_KEPT_ID))


class BadRowsError(DataError):
    """Bad rows in data that were loaded with `on_bad_row="error"`. `rows` has all of them."""

    def __init__(self, data: str, rows: Sequence[BadRow]) -> None:
        self.data, self.rows = data, tuple(rows)
        super().__init__(self.table())

    def table(self) -> str:
        """The rows as text, at most 20 of them."""
        return f"{self.data}: {format_bad_rows(self.rows)}"


def format_bad_rows(rows: Sequence[BadRow]) -> str:
    """Row number, problem and text of the first 20 bad rows, then each problem with its count and its explanation.

    Where the table shortens the first text of a problem, it follows below the explanation.
    """
    cells = [("row", "problem", "text")]
    cells += [(str(bad.row), ", ".join(bad.problems), _one_printable_line(bad)) for bad in rows[:_SHOWN_ROWS]]
    number, problem = (max(len(row[i]) for row in cells) for i in (0, 1))
    lines = [f"{len(rows)} bad row{'s' * (len(rows) != 1)}", ""]
    lines += [f"{row:>{number}}  {name:<{problem}}  {text}".rstrip() for row, name, text in cells]
    if len(rows) > _SHOWN_ROWS:
        lines.append(f"... and {len(rows) - _SHOWN_ROWS} more")
    counts = Counter(name for bad in rows for name in bad.problems)
    lines.append("")
    for name, n in counts.most_common():
        lines.append(f"{name} ({n}): {PROBLEMS[name]}")
        first = next(bad for bad in rows if name in bad.problems)
        if (text := _printable(first.text, _FULL_CHARACTERS)) not in _one_printable_line(first):
            lines.append(f"    row {first.row}: {text}")
    return "\n".join([*lines, *count_hints(rows)])


def count_hints(rows: Iterable[BadRow]) -> list[str]:
    """What to do about tags that no format has, each with the number of rows that have them."""
    hints = Counter(hint for bad in rows if (hint := find_row_hint(bad.text, bad.problems)) is not None)
    return [f"{hint} ({n})" for hint, n in hints.most_common()]


def _one_printable_line(bad: BadRow) -> str:
    """One printable line: control characters in the data must not reach the terminal."""
    text = f"{bad.id}: {bad.text}" if bad.id else bad.text
    return _printable(text[: 10 * _SHOWN_CHARACTERS], _SHOWN_CHARACTERS)


def _printable(text: str, most: int) -> str:
    """At most `most` characters on one line, of both ends: the last part of a path says more than its first."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return _cut_middle(line, most)


def _cut_middle(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most // 2) :]}"
