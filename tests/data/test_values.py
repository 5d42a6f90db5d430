"""Single values of rows: null, numbers, several answers, options."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from balanced_thinking.data.bad_rows import BadRow
from balanced_thinking.data.example import Example, find_unread_texts
from balanced_thinking.data.load import load_data
from balanced_thinking.inspection import advise_changes, inspect_data
from tests.data.row_files import SAID, asks, make_pictures, read_one, says

NAN, INFINITE = float("nan"), float("inf")
ROW = {"question": "Which animal?", "think": "It has a mane.", "answer": "horse"}

# (value of `answer`, the answer that is read)
NUMBERS = [
    (7, "7"),
    (7.0, "7"),  # pandas: a column of whole numbers with a gap
    (-0.0, "0"),
    (0.5, "0.5"),
    (2.50, "2.5"),
    (1e16, "10000000000000000"),
    (1e-7, "0.0000001"),
    (1e300, "1e+300"),  # longer than anybody writes
    (123456789012345678, "123456789012345678"),
    ("4.0", "4.0"),  # a text stays as it is
    ("NaN", "NaN"),  # a text, too
]


@pytest.mark.parametrize(("value", "expected"), NUMBERS)
def test_numbers_are_written_as_people_write_them(tmp_path: Path, value: Any, expected: str) -> None:
    example = read_one(tmp_path, ROW | {"answer": value})
    assert isinstance(example, Example)
    assert example.answer == expected


# (what replaces values of the row, the problem)
NULLS = [
    ({"answer": NAN}, "no_answer"),
    ({"answer": None}, "no_answer"),
    ({"answer": []}, "no_answer"),
    ({"answer": [None]}, "no_answer"),
    ({"answer": [NAN, ""]}, "no_answer"),
    ({"question": NAN}, "no_question"),
    ({"question": None}, "no_question"),
    ({"answer": INFINITE}, "not_finite"),
    ({"think": -INFINITE}, "not_finite"),
    ({"answer": [1, INFINITE]}, "not_finite"),
    ({"id": INFINITE}, "not_finite"),
    ({"answer": False}, "not_text"),
    ({"answer": [True, False]}, "not_text"),
    ({"answer": [10, 20, 30, 40]}, "not_text"),  # a box, of which only the first number would be an answer
    ({"question": ["What is it?", "How many legs?"]}, "not_text"),  # a file of columns, read as one row
    ({"answer": {"box": [1, 2]}}, "not_text"),
    ({"answer": "one", "choices": [None, "one"]}, "null_choice"),
    ({"answer": "one", "choices": ["one", NAN, "two"]}, "null_choice"),
    ({"answer": "one", "choices": ["one", True]}, "not_text"),
    ({"answer": "one", "choices": {"x": "one", "y": "two"}}, "not_text"),
    ({"answer": "one", "A": "one", "B": NAN, "C": "two"}, "null_choice"),  # a gap, as in a list
    ({"answer": "one", "A": NAN, "B": "one", "C": "two"}, "null_choice"),
    ({"answer": "one", "options": ["one", None, "two"]}, "null_choice"),
    ({"answer": "one", "options": ["one", True]}, "not_text"),
    ({"answer": "one", "options": {"A": {"box": "one"}, "B": {"box": "two"}}}, "not_text"),
    ({"answer": "one", "options": [{"A": "one"}, {"A": "two"}]}, "not_text"),
    ({"answer": "one", "options": [{"label": "X", "text": "one"}, {"label": "Y", "text": "two"}]}, "not_text"),
    ({"answer": "one", "options": [{"label": "B", "text": "one"}, {"label": "A", "text": "two"}]}, "not_text"),
    ({"answer": "one", "options": [{"text": "one", "image": "a.png"}, {"text": "two", "image": None}]}, "not_text"),
    ({"answer": "one", "choices": {"0": "one", "2": "two"}}, "not_text"),
    ({"answer": "three", "options": ["one", "two"]}, "answer_not_in_choices"),
]


@pytest.mark.parametrize(("values", "problem"), NULLS)
def test_what_is_no_value_is_named(tmp_path: Path, values: dict[str, Any], problem: str) -> None:
    found = read_one(tmp_path, ROW | values)
    assert isinstance(found, BadRow)
    assert found.problems == (problem,)


def test_nan_is_null_where_a_value_may_be_missing(tmp_path: Path) -> None:
    row = ROW | {"id": NAN, "think": NAN, "reasoning": "It has a mane.", "choices": NAN, "image": NAN, "system": NAN}
    example = read_one(tmp_path, row)
    assert example == Example("rows-000001", "Which animal?", (), "It has a mane.", "horse", meta=example.meta)
    assert read_one(tmp_path, ROW | {"id": 12.0}).id == "12"


@pytest.mark.parametrize("cell", ["nan", "NaN", "<NA>", ""])
def test_a_cell_that_pandas_wrote_for_no_value_is_null(tmp_path: Path, cell: str) -> None:
    file = tmp_path / "a.csv"
    file.write_text(f"question,think,reasoning,answer,system,image\nWhich?,{cell},It has a mane.,horse,{cell},{cell}\n")
    (example,) = load_data(str(file)).examples
    assert example == Example("a-000002", "Which?", (), "It has a mane.", "horse", meta=example.meta)


MISSING = ["nan", "None", "null", " NaN ", "NULL", "N/A", "n/a", "#N/A", "<NA>", "NaT", "NA", "-nan", "none", "-"]


@pytest.mark.parametrize("think", MISSING)
def test_reasoning_that_is_null_as_text_is_none(tmp_path: Path, think: str) -> None:
    assert read_one(tmp_path, ROW | {"think": think}).think is None
    talk = [asks("Which?"), {"role": "assistant", "content": "horse", "reasoning_content": think}]
    assert read_one(tmp_path, {"messages": talk}, format="direct").think is None


@pytest.mark.parametrize("text", MISSING)
def test_a_text_for_no_value_is_no_reasoning_and_no_part_of_a_prompt(tmp_path: Path, text: str) -> None:
    reasoned = ROW | {"think": text, "rationale": "It has a mane.", "system": text}
    columns = {"problem": "Which animal?", "answer": "horse", "think": text, "solution": "It has a mane."}
    for row in (
        reasoned,
        reasoned | {"rationale": ["It has", "a mane."], "system": [{"role": "system", "content": text}]},
        columns,
        {"instruction": "Which animal?", "input": text, "output": SAID, "system": text},
        {"messages": [{"role": "system", "content": text}, asks("Which animal?"), says()]},
        {"messages": [asks("Which animal?"), says("horse")], "think": text, "cot": "It has a mane."},
    ):
        example = read_one(tmp_path, row)
        assert isinstance(example, Example), example
        think = (example.think or "").replace("\n\n", " ")
        assert (example.question, example.system, think) == ("Which animal?", None, "It has a mane.")
        assert find_unread_texts(example) == []
    for row in ({"question": text, "answer": "horse"}, {"prompt": text, "answer": "horse"}):
        assert read_one(tmp_path, row).problems == ("no_question",)
    assert read_one(tmp_path, {"prompt": text, "completion": SAID}).problems == ("no_question",)


@pytest.mark.parametrize("text", ["None", "N/A", "NULL", "-", "null"])
def test_such_a_text_may_be_an_answer_or_an_option(tmp_path: Path, text: str) -> None:
    assert read_one(tmp_path, ROW | {"answer": text}).answer == text
    assert read_one(tmp_path, ROW | {"alternatives": [text]}).alternatives == (text,)
    example = read_one(tmp_path, ROW | {"A": "horse", "B": text, "C": "cat"})
    assert example.choices == ("horse", text, "cat")


# (the columns of options, the answer, the options)
SPARE = [
    (("dog", "cat", "nan", None), "B", ("dog", "cat")),
    (("dog", "cat", "nan", "nan"), "B", ("dog", "cat")),
    (("dog", "cat", "None", "None"), "B", ("dog", "cat")),
    (("dog", "cat", "N/A", "N/A"), "cat", ("dog", "cat")),
    (("dog", "cat", "-", "-"), "B", ("dog", "cat")),  # no question has an option twice
    (("dog", "cat", "cow", "NULL"), "B", ("dog", "cat", "cow")),
    (("dog", "cat", "cow", "None"), "B", ("dog", "cat", "cow")),
    (("dog", "cat", "cow", "None"), "D", ("dog", "cat", "cow", "None")),  # the answer is this option
    (("dog", "cat", "cow", "None"), "None", ("dog", "cat", "cow", "None")),
    (("dog", "cat", "cow", "N/A"), "<think>None of them.</think><answer>D</answer>", ("dog", "cat", "cow", "N/A")),
    (("+", "*", "/", "-"), "A", ("+", "*", "/", "-")),
    (("K", "Li", "Mg", "Na"), "A", ("K", "Li", "Mg", "Na")),
]


@pytest.mark.parametrize(("options", "answer", "choices"), SPARE)
def test_columns_at_the_end_without_an_option_are_left_out(
    tmp_path: Path, options: tuple[Any, ...], answer: str, choices: tuple[str, ...]
) -> None:
    for names in ("ABCD", ("option_a", "option_b", "option_c", "option_d")):
        row = {"question": "Which?", "answer": answer, **dict(zip(names, options, strict=True))}
        found = read_one(tmp_path, row)
        assert isinstance(found, Example), found
        assert found.choices == choices


@pytest.mark.parametrize("text", [*MISSING, "[]"])
def test_a_text_for_no_value_is_neither_a_picture_nor_options(tmp_path: Path, text: str) -> None:
    for name in ("choices", "options", "image", "images"):
        example = read_one(tmp_path, ROW | {name: text})
        assert isinstance(example, Example), (name, example)
        assert (example.choices, example.images) == ((), ())


def test_options_that_numpy_printed_are_named(tmp_path: Path) -> None:
    found = read_one(tmp_path, ROW | {"choices": "['horse' 'dog']"})
    assert isinstance(found, BadRow), found
    assert found.problems == ("not_text",)
    assert "json.dumps" in found.text


def test_alternatives_that_pandas_wrote_for_no_value_are_left_out(tmp_path: Path) -> None:
    for given in ("nan", ["nan", NAN], ["<NA>", "#N/A"], "[]"):
        assert read_one(tmp_path, ROW | {"alternatives": given}).alternatives == ()


# (an answer, the answer and its alternatives, or the problem)
STRUCTURES = [
    ("['4', '5']", ("4", "5")),
    ("['4', None]", ("4",)),
    ("['cat' 'dog']", "not_text"),  # NumPy
    ("['cat'\n 'dog']", "not_text"),
    ("array(['cat', 'dog'], dtype=object)", "not_text"),
    ("{'text': array(['cat'], dtype=object), 'answer_start': array([3])}", "not_text"),  # SQuAD's, through pandas
    ("[{'answer_id': 1, 'answers': array(['cat'], dtype=object)}]", "not_text"),
    ("{'a': 1}", "not_text"),
    ("[{'answer': 'cat'}]", "not_text"),
    ("[]", "no_answer"),
    ("['']", "no_answer"),
    ('{"a": 1}', ('{"a": 1}',)),  # JSON, which a model may be asked for
    ('[{"box": [1, 2]}]', ('[{"box": [1, 2]}]',)),
    ("[1, 2]", ("[1, 2]",)),
    ("{1, 2}", ("{1, 2}",)),
    ("{x : x > 0}", ("{x : x > 0}",)),
    ("[a, b]", ("[a, b]",)),
    ("[\"a\", \"b 'c' 'd'\"]", ("a", "b 'c' 'd'")),  # JSON with quotes inside
]


@pytest.mark.parametrize(("written", "expected"), STRUCTURES)
def test_an_answer_is_never_the_text_of_a_structure(tmp_path: Path, written: str, expected: Any) -> None:
    found = read_one(tmp_path, ROW | {"answer": written})
    if isinstance(found, BadRow):
        assert found.problems == (expected,)
    else:
        assert (found.answer, *found.alternatives) == expected


def test_a_long_text_like_an_array_takes_no_minutes(tmp_path: Path) -> None:
    text = "array([" + "],dtype=" * 20_000
    assert read_one(tmp_path, ROW | {"answer": text}).answer == text


# (reasoning, what is read or the problem)
STEPS = [
    ("['One step.', 'Two step.']", "One step.\n\nTwo step."),
    ('["One step.", "Two step."]', "One step.\n\nTwo step."),
    ('[{"text": "One step."}, {"text": "Two step."}]', "One step.\n\nTwo step."),
    (["One step.", {"text": ""}, "Two step."], "One step.\n\nTwo step."),
    ("['One step.' 'Two step.']", "not_text"),
    ("{'steps': ['One step.']}", "not_text"),
    ("[{'step': 'One step.'}]", "not_text"),
    ("array(['One step.'], dtype=object)", "not_text"),
    ("[]", None),
    ("[None]", None),
    ("[1, 2] are the corners.", "[1, 2] are the corners."),
]


@pytest.mark.parametrize(("think", "expected"), STEPS)
def test_reasoning_may_be_the_text_of_a_list(tmp_path: Path, think: Any, expected: str | None) -> None:
    turn = {"role": "assistant", "content": "horse", "reasoning_content": think}
    for row in (ROW | {"think": think}, {"messages": [asks("Which?"), turn]}):
        found = read_one(tmp_path, row, format="direct")
        assert (found.problems[0] if isinstance(found, BadRow) else found.think) == expected
        assert isinstance(found, BadRow) or find_unread_texts(found) == []


# (an Alpaca row's input, the question or the problem)
INPUTS = [
    ("91", "Add.\n91"),
    (91, "Add.\n91"),
    (2.0, "Add.\n2"),
    (NAN, "Add."),
    ("<noinput>", "Add."),
    ("NULL and 3", "Add.\nNULL and 3"),
    (None, "Add."),
    (" ", "Add."),
    ([], "Add."),
    ([1, 2], "not_text"),
    ({"a": 1}, "not_text"),
    (True, "not_text"),
]


@pytest.mark.parametrize(("given", "expected"), INPUTS)
def test_the_input_of_an_instruction_is_read_or_refused(tmp_path: Path, given: Any, expected: str) -> None:
    found = read_one(tmp_path, {"instruction": "Add.", "input": given, "output": "horse"})
    assert (found.problems[0] if isinstance(found, BadRow) else found.question) == expected


# (values of the row, the answer, the alternatives)
ANSWERS = [
    ({"answer": ["horse"]}, "horse", ()),  # one-element lists are their element
    ({"answer": [["horse"]]}, "horse", ()),
    ({"answer": ["horse", "pony", "horse"]}, "horse", ("pony",)),  # ChartQA's shape
    ({"answer": [4.0, "four"]}, "4", ("four",)),
    ({"answer": [" ", "horse", None]}, "horse", ()),
    ({"answer": None, "answers": ["horse", "pony"]}, "horse", ("pony",)),
    ({"answer": "horse", "answers": ["pony", "horse"]}, "horse", ("pony",)),
    ({"answer": "horse", "alternatives": ["pony"]}, "horse", ("pony",)),
    ({"answer": None, "answers": [{"answer": "horse", "answer_id": 1}, {"answer": "pony"}]}, "horse", ("pony",)),  # VQA
    ({"answer": {"text": "horse"}}, "horse", ()),
    ({"answer": "['horse', 'pony']"}, "horse", ("pony",)),  # as pandas writes a list
    ({"answer": "[1, 2]"}, "[1, 2]", ()),  # which may be meant
    ({"answer": {"text": ["horse", "pony"], "answer_start": [1, 2]}}, "horse", ("pony",)),  # SQuAD
    ({"answer": {"value": "horse", "aliases": ["pony", "mare"]}}, "horse", ("pony", "mare")),  # TriviaQA
    ({"answer": ["<answer>horse</answer>", "<answer>pony</answer>"]}, "horse", ("pony",)),
    ({"answer": ["<answer>horse</answer>", "horse"]}, "horse", ()),
    ({"answers": ["<answer>pony</answer>", "\\boxed{horse}"]}, "horse", ("pony",)),
    ({"alternatives": ["<solution>pony</solution>", "<answer>horse</answer>"]}, "horse", ("pony",)),
]


@pytest.mark.parametrize(("values", "answer", "others"), ANSWERS)
def test_several_answers_are_one_to_train_on_and_alternatives(
    tmp_path: Path, values: dict[str, Any], answer: str, others: tuple[str, ...]
) -> None:
    example = read_one(tmp_path, ROW | values)
    assert isinstance(example, Example), example
    assert (example.answer, example.alternatives) == (answer, others)
    assert not {"answers", "alternatives"} & example.meta.keys()


NINE_CATS = [f"cat {n}" for n in range(2, 11)]
# (values of the row, the choices)
CHOICES = [
    ({"choices": ["horse", "dog"]}, ("horse", "dog")),
    ({"options": ["horse", "dog"]}, ("horse", "dog")),
    ({"options": {"A": "horse", "B": "dog"}}, ("horse", "dog")),
    ({"choices": {"text": ["horse", "dog"], "label": ["A", "B"]}}, ("horse", "dog")),  # ARC's shape
    ({"choices": {"0": "horse", "1": "dog"}}, ("horse", "dog")),
    ({"options": {"1": "horse", **{str(n): f"cat {n}" for n in range(2, 12)}}}, ("horse", *NINE_CATS, "cat 11")),
    ({"options": "['horse', 'dog']"}, ("horse", "dog")),  # MMMU's, and what pandas writes
    ({"options": '["horse", "dog"]'}, ("horse", "dog")),
    ({"options": "A. horse\nB. dog"}, ("horse", "dog")),
    ({"A": "horse", "B": "dog", "C": None}, ("horse", "dog")),  # a column for each
    ({"A": "horse", "B": "dog", "C": None, "E": 5}, ("horse", "dog")),
    ({"option_a": "horse", "option_b": "dog", "option_c": ""}, ("horse", "dog")),
    ({"choice_B": "dog", "choice_A": "horse"}, ("horse", "dog")),
    ({"Option 1": "horse", "Option 2": "dog"}, ("horse", "dog")),
    ({"option0": "horse", "option1": "dog"}, ("horse", "dog")),
    ({"Options": ["horse", "dog"]}, ("horse", "dog")),
    ({"options": [{"label": "A", "text": "horse"}, {"label": "B", "text": "dog"}]}, ("horse", "dog")),
    ({"choices": [{"key": "a", "value": "horse"}, {"key": "b", "value": "dog"}]}, ("horse", "dog")),
    ({"choices": [{"id": 1, "content": "horse", "correct": True}, {"id": 2, "content": "dog"}]}, ("horse", "dog")),
    ({"options": [{"option": "horse"}, {"option": "dog"}]}, ("horse", "dog")),
    ({"options": [{"A": "horse"}, {"B": "dog"}]}, ("horse", "dog")),
    ({"options": {"A": {"text": "horse"}, "B": {"text": "dog"}}}, ("horse", "dog")),
    ({"choices": ["horse", "dog", None, NAN]}, ("horse", "dog")),  # filled up
    ({"choices": [], "options": ["horse", "dog"]}, ("horse", "dog")),
    ({"choices": {"text": ["horse", "dog"], "label": ["(a)", "b."]}}, ("horse", "dog")),
    ({"choices": {"text": ["horse", "dog", None], "label": [1, 2, None]}}, ("horse", "dog")),
    ({"choices": {"text": ["horse", "dog", "cat"], "label": [1, 0, 0]}}, ("horse", "dog", "cat")),  # which is right
    ({"choices": {"text": ["horse", "dog"], "label": [True, False]}}, ("horse", "dog")),
    ({"choices": {"text": ["horse", "dog"], "label": [0, 0]}}, ("horse", "dog")),
    ({"options": "{'A': 'horse', 'B': 'dog'}"}, ("horse", "dog")),
    ({"options": '{"B": "dog", "A": "horse"}'}, ("horse", "dog")),
    ({"options": "horse|dog"}, ("horse", "dog")),
    ({"options": "horse | dog|s"}, ("horse", "dog|s")),
    ({"options": "a) horse\nb) dog"}, ("horse", "dog")),
    ({"opa": "horse", "opb": "dog"}, ("horse", "dog")),
    ({"opt_A": "horse", "opt_B": "dog"}, ("horse", "dog")),
    ({"options": "", "op1": "horse", "op2": "dog"}, ()),  # operands
    ({"A": "B. horse", "B": "A. dog"}, ("B. horse", "A. dog")),  # a text of its own, not a letter
    ({"choices": ["horse", "N. Bohr", "M. Curie"]}, ("horse", "N. Bohr", "M. Curie")),
    ({"choices": [{"label": "A", "text": "C. horse"}, {"label": "B", "text": "A. dog"}]}, ("C. horse", "A. dog")),
    ({"options": "['horse' 'dog']"}, ()),  # NumPy's
    ({"options": "fast"}, ()),  # no options of a question
    ({"options": {"temperature": 1}}, ()),
    ({"options": ["horse"]}, ()),
]


@pytest.mark.parametrize(("values", "choices"), CHOICES)
def test_options_are_read_where_they_clearly_are(tmp_path: Path, values: dict[str, Any], choices: Any) -> None:
    example = read_one(tmp_path, ROW | values)
    assert isinstance(example, Example), example
    assert example.choices == choices
    assert ("options" in example.meta) == (not choices)


# (question, choices, whether the question lists them already)
SHOWN = [
    ("Which animal?", ["horse", "dog"], False),
    ("Which animal?\nA. horse\nB. dog", ["horse", "dog"], True),
    ("Is it a horse or a dog?", ["horse", "dog"], True),
    ("Is it a Horse (or a DOG)?", ["horse", "dog"], True),
    ("Which of 10 and 12?", ["1", "2"], False),  # only parts of numbers
    ("Which horseman?", ["horse", "dog"], False),  # a part of a word
    ("A horse?", ["horse", "dog"], False),  # one of two
    ("Which? A: 3 cm B: 4 cm", ["3 cm", "4 cm"], True),
]


@pytest.mark.parametrize(("question", "choices", "shown"), SHOWN)
def test_choices_are_listed_on_request_where_the_question_does_not_show_them(
    tmp_path: Path, question: str, choices: list[str], shown: bool
) -> None:
    row = {"question": question, "answer": choices[0], "choices": choices}
    assert read_one(tmp_path, row).question == question
    listed = f"{question}\nA. {choices[0]}\nB. {choices[1]}"
    assert read_one(tmp_path, row, list_choices=True).question == (question if shown else listed)


# Options whose letters do not say their place, so that a letter would be scored as another option.
OTHER_ORDERS = [
    {"choices": {"text": ["horse", "dog"], "label": ["B", "A"]}},
    {"choices": {"text": ["horse", "dog"], "label": [1, 0]}},
    {"choices": {"text": ["horse", "dog"], "label": [["A"], {"B": 1}]}},
    {"choices": {"text": ["horse", "dog"], "label": ["A"]}},
    {"choices": {"text": ["horse", "dog"], "labels": ["B", "C"]}},
    {"choices": ["A. horse", "C. dog", "B. cow"]},
    {"choices": ["b) horse", "a) dog"]},
    {"choices": ["(D) horse", "(F) dog"]},
    {"choices": ["(B)-5", "(A)-7"]},
    {"choices": ["B: horse", "A: dog"]},
    {"choices": ["B. horse", "C. dog"]},
    {"choices": [{"text": "B. horse"}, {"text": "A. dog"}]},
    {"choices": {"text": ["B. horse", "A. dog"]}},
    {"options": "B. horse\nA. dog"},
    {"options": "B. horse | A. dog"},
    {"options": ["b. horse", "a. dog"]},
]


@pytest.mark.parametrize("values", OTHER_ORDERS)
def test_options_in_another_order_than_their_letters_are_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    found = read_one(tmp_path, ROW | {"answer": "B"} | values)
    assert isinstance(found, BadRow), found
    assert found.problems == ("not_text",)
    assert "in order" in found.text


# Options that begin with a letter that is no label.
NO_LABELS = [
    ["p.m.", "a.m."],
    ["A.D.", "B.C."],
    ["B.C.", "A.D."],
    ["(E)-but-2-ene", "(Z)-but-2-ene"],
    ["(R)-2-butanol", "(S)-2-butanol"],
    ["X: up", "Y: down"],
    ["C:\\Windows", "D:\\Data"],
]


@pytest.mark.parametrize("choices", NO_LABELS)
def test_the_first_letter_of_a_text_is_no_label(tmp_path: Path, choices: list[str]) -> None:
    row = {"question": "Which?", "answer": choices[0], "choices": choices}
    found = read_one(tmp_path, row, list_choices=True)
    assert isinstance(found, Example), found
    assert found.question == f"Which?\nA. {choices[0]}\nB. {choices[1]}"


@pytest.mark.parametrize("choices", [["A. horse", "B. dog"], ["a) horse", "b) dog"], ["(a) horse", "(b) dog"]])
def test_options_with_letters_are_listed_with_one_letter(tmp_path: Path, choices: list[str]) -> None:
    row = {"question": "Which animal?", "answer": "B", "choices": choices}
    assert read_one(tmp_path, row, list_choices=True).question == "Which animal?\nA. horse\nB. dog"


BESIDE = [
    ({"answer": "2"}, ("2",)),
    ({"answer": 2.0, "answers": ["two", "2"]}, ("2", "two")),
    ({"answer": " <answer> 2 </answer> "}, ("2",)),
    ({"answer": ["2", "two"]}, ("2", "two")),
    ({"answer": "It is 2."}, ()),  # what the completion says
    ({"answer": None}, ()),
    ({"answer": True}, ()),
    ({"answer": {"box": [1, 2]}}, ()),
    ({"answer": 1, "choices": ["It is 3.", "It is 2."]}, ()),  # perhaps a position
]


@pytest.mark.parametrize(("values", "alternatives"), BESIDE)
def test_the_answer_beside_a_conversation_is_right_as_well(
    tmp_path: Path, values: dict[str, Any], alternatives: Any
) -> None:
    said = "<think>\nOne and one.\n</think>\n\nIt is 2."
    for row in ({"messages": [asks("How many?"), says(said)]}, {"prompt": "How many?", "completion": said}):
        example = read_one(tmp_path, row | values)
        assert isinstance(example, Example), example
        assert (example.answer, example.alternatives) == ("It is 2.", alternatives)


def test_a_csv_cell_may_hold_several_answers_or_options(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,options,answers\nWhich?,horse | dog,horse | pony\n")
    (example,) = load_data(str(tmp_path / "a.csv")).examples
    assert (example.choices, example.answer, example.alternatives) == (("horse", "dog"), "horse", ("pony",))


def test_values_that_are_not_read_stay_in_meta(tmp_path: Path) -> None:
    example = read_one(tmp_path, ROW | {"weight": 1.0, "history": "long", "system": {"os": "x"}, "thought": "Hm."})
    assert json.dumps(example.meta["system"]) == '{"os": "x"}'
    assert (example.meta["history"], example.meta["thought"], example.history) == ("long", "Hm.", ())


# (column of a CSV file, its cell, the options)
CELLS_OF_OPTIONS = [
    ("options", "['horse', 'dog']", ("horse", "dog")),
    ("options", '["horse","dog"]', ("horse", "dog")),
    ("options", "{'A':'horse','B':'dog'}", ("horse", "dog")),
    ("options", "A. horse\nB. dog", ("horse", "dog")),
    ("options", "horse | dog", ("horse", "dog")),
    ("choices", "horse|dog", ("horse", "dog")),
    ("choices", "['horse | mule', 'dog']", ("horse | mule", "dog")),
    ("choices", '{"A": "horse | mule", "B": "dog"}', ("horse | mule", "dog")),
]


@pytest.mark.parametrize(("name", "cell", "choices"), CELLS_OF_OPTIONS)
@pytest.mark.parametrize("mapped", [False, True])
def test_a_cell_may_hold_the_text_of_a_list(
    tmp_path: Path, name: str, cell: str, choices: tuple[str, ...], mapped: bool
) -> None:
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        column = "picks" if mapped else name
        writer = csv.DictWriter(file, ("question", "answer", column))
        writer.writeheader()
        writer.writerow({"question": "Which animal?", "answer": "B", column: cell})
    options = {"columns": {name: "picks"}} if mapped else {}
    (example,) = load_data(str(tmp_path / "rows.csv"), options=options).examples
    assert example.choices == choices


@pytest.mark.parametrize("cell", ["['one.png']", "{'path': 'one.png', 'bytes': None}", '[{"path": "one.png"}]'])
def test_a_cell_may_hold_the_text_of_a_picture(tmp_path: Path, cell: str) -> None:
    make_pictures(tmp_path)
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["question", "answer", "image"], ["Which animal?", "horse", cell]])
    (example,) = load_data(str(tmp_path / "rows.csv"), verify_images=True).examples
    assert [getattr(image, "name", None) for image in example.images] == ["one.png"]


@pytest.mark.parametrize("history", ["[['Hi?', 'Hello.']]", '[["Hi?", "Hello."]]'])
def test_the_text_of_a_list_of_earlier_turns_is_read(tmp_path: Path, history: str) -> None:
    example = read_one(tmp_path, ROW | {"history": history})
    assert isinstance(example, Example)
    assert [turn.text for turn in example.history] == ["Hi?", "Hello."]
    assert "history" not in example.meta


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        ({"options": "horse,dog"}, "nothing reads the text under options (1): expected a list of options"),
        ({"options": "horse; dog"}, "nothing reads the text under options (1)"),
        ({"history": "He said hello."}, "nothing reads the text under history (1): expected a list of turns"),
    ],
)
def test_what_is_no_list_is_named_with_the_form_to_write(tmp_path: Path, values: dict[str, Any], advice: str) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW | values))
    found = advise_changes(inspect_data(str(tmp_path / "rows.jsonl")))
    assert any(advice in line for line in found), found
    assert not any("{think: NAME}" in line for line in found)


def test_a_long_text_under_options_takes_no_minutes(tmp_path: Path) -> None:
    assert find_unread_texts(read_one(tmp_path, ROW | {"options": "horse" + "," * 10**6})) == []


# (cells of a column of a CSV file, the answers)
COLUMNS_OF_NUMBERS = [
    (["4.0", "", "7.0"], ["4", "7"]),  # whole numbers with a gap
    (["", "nan", "-7.0"], ["-7"]),
    (["4.0", "-0.0", "1e+16", "1.5e+16"], ["4", "0", "10000000000000000", "15000000000000000"]),
    (["4.0", "4.5"], ["4.0", "4.5"]),  # `4.0` may be meant
    (["4.0", "four"], ["4.0", "four"]),
    (["4.00", "5.0"], ["4.00", "5.0"]),
    (["4", "5.0"], ["4", "5.0"]),
    (["1e+16", "2e+16"], ["1e+16", "2e+16"]),
    (["4.0", "inf", "5.0"], ["4", "5", "not_finite"]),
    (["-inf", "Inf", "b"], ["b", "not_finite", "not_finite"]),
    (["inf. many", "infinity"], ["inf. many", "infinity"]),  # texts
]


@pytest.mark.parametrize(("cells", "answers"), COLUMNS_OF_NUMBERS)
@pytest.mark.parametrize("form", ["a.csv", "a.tsv", "folder"])
def test_numbers_of_a_csv_file_are_read_as_those_of_other_files(
    tmp_path: Path, cells: list[str], answers: list[str], form: str
) -> None:
    file = tmp_path / ("metadata.csv" if form == "folder" else form)
    with file.open("w", newline="") as stream:
        out = csv.writer(stream, delimiter="\t" if form == "a.tsv" else ",")
        out.writerows([["question", "answer"], *(["How many?", cell] for cell in cells)])
    loaded = load_data(str(tmp_path if form == "folder" else file), on_bad_row="drop")
    found = [example.answer for example in loaded.examples]
    found += [problem for bad in loaded.bad_rows for problem in bad.problems if problem != "no_answer"]
    assert found == answers
