"""A question of the user, as the example that an evaluation would ask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from balanced_thinking.config.errors import BalancedThinkingError
from balanced_thinking.data.example import Example, format_question
from balanced_thinking.data.images import picture_name
from balanced_thinking.data.picture_files import PICTURE_SUFFIXES, SHOWN_FORMATS, find_damage
from balanced_thinking.evaluation.prompts import apply_prompt
from balanced_thinking.segments import ReasoningFormat
from balanced_thinking.system.files import expand_home

MOST_PICTURES = 16
LONGEST_QUESTION = 20_000  # characters


class QuestionError(BalancedThinkingError, ValueError):
    """A question or a picture that cannot be asked; the message says what to change."""


@dataclass(frozen=True)
class Question:
    """What all models are asked.

    Attributes:
        text: without the options.
        images: picture files, before the text.
        choices: the options, which the prompt lists as `A. dog`; () for an open question.
        answer: the right answer, if it is known: then the replies are scored.
    """

    text: str
    images: tuple[Path, ...] = ()
    choices: tuple[str, ...] = ()
    answer: str | None = None

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise QuestionError("the question is empty: write one, such as `What color is the circle?`")
        if len(self.text) > LONGEST_QUESTION:
            raise QuestionError(
                f"the question has {len(self.text):,} characters; expected at most {LONGEST_QUESTION:,}"
            )
        if len(self.images) > MOST_PICTURES:
            raise QuestionError(f"there are {len(self.images)} pictures; expected at most {MOST_PICTURES}")

    def to_example(self, id: str, prompt: str, format: ReasoningFormat) -> Example:
        """The example, with the text that this prompt makes of it. An unknown answer is empty."""
        example = Example(
            id=id,
            question=format_question(self.text.strip(), self.choices),
            images=self.images,
            think=None,
            answer=self.answer or "",
            choices=self.choices,
        )
        return apply_prompt(example, prompt, format)


def check_picture(name: str | Path) -> Path:
    """The file of a picture, which was decoded once. Raises QuestionError for one that cannot be used."""
    path = expand_home(name)
    if not path.is_file():
        expected = "is a folder; expected" if path.is_dir() else "does not exist; expected"
        raise QuestionError(f"the picture {name} {expected} a {SHOWN_FORMATS} file")
    if (damage := find_damage(path)) is not None:
        raise QuestionError(f"the picture {picture_name(path)} cannot be used: {damage}")
    return path


def has_picture_name(path: Path) -> bool:
    """Whether a file is named like a picture."""
    return path.suffix.lower().lstrip(".") in PICTURE_SUFFIXES
