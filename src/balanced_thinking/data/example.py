"""One question about pictures, with its reasoning and its answer: what every adapter yields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image


@dataclass(frozen=True)
class Example:
    """One sample, whatever data set it comes from.

    id: unique within its data set. question: the prompt's text, without image placeholders.
    images: in the order of the question; paths stay paths until the batch is built.
    think: the reasoning without tags, None where there is none (evaluation only). answer: the answer without tags.
    choices: the options' texts in the order shown, for scoring; () where it is open. Nothing adds them to the question.
    meta: anything else, such as `family` (reported one by one) and `row` (where the sample stands in its file).
    """

    id: str
    question: str
    images: tuple[Path | Image.Image, ...]
    think: str | None
    answer: str
    choices: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)


def list_choices(choices: Sequence[Any]) -> str:
    """The options as a question lists them: `A. dog`, a line each."""
    return "\n".join(f"{chr(ord('A') + k)}. {choice}" for k, choice in enumerate(choices))


def format_question(question: str, choices: Sequence[Any] = (), unit: Any = None) -> str:
    """A question with the unit that its answer is in, and its options."""
    return "\n".join(
        [f"{question} (Unit: {unit})" if unit else question, *([list_choices(choices)] if choices else [])]
    )
