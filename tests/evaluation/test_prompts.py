"""How a question is put: what each prompt adds, in every format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from balanced_thinking.data.example import Example, Turn
from balanced_thinking.data.load import load_data
from balanced_thinking.data.rows import prompt_messages
from balanced_thinking.evaluation.benchmarks import Benchmark
from balanced_thinking.evaluation.prompts import PROMPTS, apply_prompt, get_prompt
from balanced_thinking.evaluation.task import load_task_data, put_shots_before
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


@pytest.mark.parametrize("data", ["world", "world-text"])
def test_shots_are_training_rows_in_front_of_each_question(data: str) -> None:
    rows = load_data(data, options={"n": 3}).examples
    asked = load_task_data(Benchmark(data, options={"n": 3}, shots=2), "test", "think-answer").examples
    alone = load_data(data, split="test", options={"n": 3}).examples
    for one, plain in zip(asked, alone, strict=True):
        assert (one.id, one.question, one.answer) == (plain.id, plain.question, plain.answer)
        assert [turn.role for turn in one.history] == ["user", "assistant"] * 2
        assert [turn.text for turn in one.history[::2]] == [row.question for row in rows[:2]]
        for turn, row in zip(one.history[1::2], rows, strict=False):
            shown = parse(turn.text)
            assert (shown.think, shown.answer, shown.problems) == (row.think, row.answer, ())
        pictures = [image for example in (*rows[:2], plain) for image in example.images]
        assert [image.tobytes() for image in one.images] == [image.tobytes() for image in pictures]
        assert str(prompt_messages(one)).count("'type': 'image'") == len(pictures)
    with pytest.raises(ValueError, match="has 3 good rows; expected 4 shots"):
        load_task_data(Benchmark(data, options={"n": 3}, shots=4), "test", "think-answer")


def test_an_item_is_never_asked_after_its_own_answer(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"  # without a column `split`, every row is in every split
    file.write_text("".join(json.dumps({"question": f"Q{n}?", "answer": str(n)}) + "\n" for n in range(4)))
    with pytest.raises(ValueError, match="also a row of the split train that would be put in front of it"):
        load_task_data(Benchmark(str(file), shots=2), "test", "direct")


def test_a_shot_with_earlier_turns_keeps_its_pictures_in_their_places() -> None:
    earlier = (Turn("user", "What is it?", (0,)), Turn("assistant", "A cat."))
    one, two = Image.new("RGB", (8, 8)), Image.new("RGB", (9, 9))
    shot = Example("s", "And this?", (one, two), None, "dog", history=earlier)
    asked = put_shots_before(Example("e", "Which?", (), None, "cat"), [shot], get_format("direct"))
    assert [turn.text for turn in asked.history] == ["What is it?", "A cat.", "And this?", "dog"]
    assert [len(turn.image_places) for turn in asked.history] == [1, 0, 1, 0]
    assert asked.images == (one, two)
