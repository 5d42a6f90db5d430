"""How a question is put: what each prompt adds, in every format."""

from __future__ import annotations

import pytest

from balanced_thinking.data.example import Example
from balanced_thinking.evaluation.prompts import PROMPTS, apply_prompt, get_prompt
from balanced_thinking.segments import FORMATS, get_format, parse

COLOURS = Example("1", "Which colour?\nA. red\nB. blue", (), None, "A", choices=("red", "blue"))
OPEN = Example("2", "How many?", (), None, "2")


@pytest.mark.parametrize("format", FORMATS)
def test_what_the_instruction_shows_is_read_as_the_format_says(format: str) -> None:
    told = apply_prompt(OPEN, "instructed", get_format(format)).question
    assert told.startswith(OPEN.question)
    shown = parse(told.split("exactly in this form:\n")[1], format)
    assert (shown.answer, shown.problems) == ("your final answer", ())
    assert shown.think == (None if format == "direct" else "your reasoning, step by step")


@pytest.mark.parametrize(
    ("name", "line"),
    [  # post_prompt in lmms-eval 0.7.3's yaml files of scienceqa, chartqa and vqav2
        ("lmms-scienceqa", "\nAnswer with the option's letter from the given choices directly."),
        ("lmms-chartqa", "\nAnswer the question with a single word."),
        ("lmms-vqa", "\nAnswer the question using a single word or phrase."),
    ],
)
def test_lmms_adds_its_line(name: str, line: str) -> None:
    assert apply_prompt(COLOURS, name, get_format("direct")).question == COLOURS.question + line


@pytest.mark.parametrize("name", PROMPTS)
def test_a_prompt_changes_the_question_alone(name: str) -> None:
    put = apply_prompt(COLOURS, name, get_format("think-answer"))
    assert (put.id, put.answer, put.choices, put.images) == (COLOURS.id, "A", COLOURS.choices, ())
    assert (put.question == COLOURS.question) == (name == "question")


def test_an_unknown_prompt_is_named() -> None:
    with pytest.raises(ValueError, match="did you mean 'instructed'"):
        get_prompt("instruct")
