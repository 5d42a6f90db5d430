"""Tags in columns, tags of no format, and texts that could not be read back from a format."""

from __future__ import annotations

from pathlib import Path

import pytest

from balanced_thinking.cli import main
from balanced_thinking.config.yaml import read_yaml
from balanced_thinking.data.bad_rows import BadRow
from balanced_thinking.data.checks import check_examples, find_written_problems
from balanced_thinking.data.columns import split_columns
from balanced_thinking.data.convert import write_jsonl
from balanced_thinking.data.example import Example
from balanced_thinking.data.load import load_data, stream_data
from balanced_thinking.data.tag_hints import find_tag_hint
from balanced_thinking.data.values import RowProblemError
from balanced_thinking.inspection import advise_changes, describe_inspection, inspect_data
from balanced_thinking.segments import FORMATS, get_format, parse, render
from tests.data.row_files import asks, read_all, read_one, says

OWN = {"think_open": "[why]", "think_close": "[/why]", "answer_open": "[so]", "answer_close": "[/so]"}
# (think, answer, what they are without their tags)
TAGGED = [
    ("It has fins.", "fish", ("It has fins.", "fish")),
    ("<think>It has fins.</think>", "fish", ("It has fins.", "fish")),
    (" <think>\nIt has fins.\n</think>\n", "<answer> fish </answer>", ("It has fins.", "fish")),
    ("<reason>It has fins.</reason>", "<CONCLUSION> fish </CONCLUSION>", ("It has fins.", "fish")),  # other formats
    ("◁think▷It has fins.◁/think▷", r"\boxed{fish}", ("It has fins.", "fish")),
    ("<Thinking>It has fins.</Thinking>", "<final_answer>fish</final_answer>", ("It has fins.", "fish")),  # usual names
    ("< think >It has fins.</ think >", "<ANSWER>fish</ANSWER>", ("It has fins.", "fish")),
    ("[THINK]It has fins.[/THINK]", "[ANSWER]fish[/ANSWER]", ("It has fins.", "fish")),
    (
        "<|begin_of_thought|>It has fins.<|end_of_thought|>",
        "<|begin_of_solution|>fish<|end_of_solution|>",
        ("It has fins.", "fish"),
    ),
    ("&lt;think&gt;It has fins.&lt;/think&gt;", "&lt;answer&gt;fish&lt;/answer&gt;", ("It has fins.", "fish")),
    ("It has fins. <answer>fish</answer>", "fish", ("It has fins.", "fish")),  # a completion in the column
    ("<think>It has fins.</think>\n<answer>fish</answer>", "fish", ("It has fins.", "fish")),
    ("<think>It has fins. <ANSWER>fish</ANSWER></think>", "fish", ("It has fins.", "fish")),
    ("I would print <answer>dog</answer> first.", "fish", ("I would print <answer>dog</answer> first.", "fish")),
    ("It has fins.", "<solution>fish</solution>", ("It has fins.", "fish")),
    ("It has <b>fins</b>.", "[1] <b>fish</b>", ("It has <b>fins</b>.", "[1] <b>fish</b>")),  # no tags of reasoning
    ("The tag <solution> is odd.", "<result>fish</result>", ("The tag <solution> is odd.", "<result>fish</result>")),
    ("[why]It has fins.[/why]", "[so]fish[/so]", ("[why]It has fins.[/why]", "[so]fish[/so]")),  # nobody's tags
    ("It has fins.", r"\boxed{\frac{1}{2}}", ("It has fins.", r"\frac{1}{2}")),  # braces inside
    ("It has fins.", r"\boxed{1} or \boxed{2}", ("It has fins.\n\n\\boxed{1} or", "2")),  # two boxes: the last counts
    ("The tag </think> ends it.", "fish", ("The tag </think> ends it.", "fish")),  # no pair
    ("<think>a</think> and <think>b</think>", "fish", ("<think>a</think> and <think>b</think>", "fish")),  # two pairs
    (None, "<think>It has fins.</think><answer>fish</answer>", ("It has fins.", "fish")),  # a completion
    (None, "It has fins. \\boxed{fish}", ("It has fins.", "fish")),
    ("It has fins.", "<think>It has fins.</think><answer>fish</answer>", ("It has fins.", "fish")),
    ("<think></think>", "fish", (None, "fish")),
    (None, "fish < dog", (None, "fish < dog")),
    ("<seed:think>It has fins.</seed:think>", "<seed:answer>fish</seed:answer>", ("It has fins.", "fish")),
    ("<thinking>\nIt has fins.\n</thinking>", "fish", ("It has fins.", "fish")),
    (
        "<|channel|>analysis<|message|>It has fins.<|end|>",  # Harmony's
        "<|start|>assistant<|channel|>final<|message|>fish<|return|>",
        ("It has fins.", "fish"),
    ),
    ("It has fins.<|im_end|>", "fish</s>", ("It has fins.", "fish")),
    ("<think>It has fins.</think><|eot_id|>", "<answer>fish</answer> <end_of_turn>\n", ("It has fins.", "fish")),
    (None, "<s>cat</s> fish", (None, "<s>cat</s> fish")),  # HTML
    (None, "the old <s>cat</s>", (None, "the old <s>cat</s>")),
    ("It asks for the token.", "<|im_end|>", ("It asks for the token.", "<|im_end|>")),
    ("It asks for the tag.", "<solution>", ("It asks for the tag.", "<solution>")),
    ("[Answer] It has fins.", "fish", ("[Answer] It has fins.", "fish")),  # brackets are the text's own
]


@pytest.mark.parametrize(("think", "answer", "expected"), TAGGED)
def test_one_pair_of_tags_is_taken_off(tmp_path: Path, think: str | None, answer: str, expected: tuple) -> None:
    assert split_columns(think, answer)[:2] == expected
    example = read_one(tmp_path, {"question": "Which?", "think": think, "answer": answer})
    assert (example.think, example.answer) == expected


def test_tags_of_a_users_own_format_are_taken_off() -> None:
    assert split_columns("[why]It has fins.[/why]", "[so]fish[/so]", OWN)[:2] == ("It has fins.", "fish")


@pytest.mark.parametrize(
    ("think", "answer", "problem"),
    [
        ("Other.", "<think>It has fins.</think><answer>fish</answer>", "multiple_thinks"),
        (None, "<think>It has fins.</think> so <answer>fish</answer>", "text_between"),
        (None, "<think>It has fins.", "no_answer"),
        (None, "<answer>fish</answer> I think", "text_after_answer"),
        (None, "[THINK]It has fins.[/THINK]fish", "tag_in_text"),
        ("[THINK]It has fins.[/THINK] So.", "fish", "tag_in_text"),
        ("&lt;think&gt;It has fins.&lt;/think&gt; So.", "fish", "tag_in_text"),
        ("It has fins. <answer>dog</answer>", "fish", "tag_in_text"),
        ("It has fins.", "It is <solution>fish</solution>", "tag_in_text"),
        ("<reasoning>It has fins.", "fish", "tag_in_text"),  # never closed
        ("It has fins.</reasoning>", "fish", "tag_in_text"),
        ("It has fins.", "<final>fish", "tag_in_text"),
        ("It has fins.", "fish</final_answer>", "tag_in_text"),
        ("<seed:think>It has fins.", "fish", "tag_in_text"),
        ("It has fins.</seed:think>", "fish", "tag_in_text"),
        ("<|im_start|>assistant\nIt has fins.", "fish", "tag_in_text"),
        ("It has fins.", "<start_of_turn>model\nfish", "tag_in_text"),
        ("It has fins.", "fish<|eot|>", "tag_in_text"),  # a token that is not known
        ("It has fins.", "<|channel|>analysis<|message|>A.<|end|><|channel|>final<|message|>fish", "tag_in_text"),
        ("So.<|end|><|start|>assistant<|channel|>final<|message|>fish", "fish", "tag_in_text"),
    ],
)
def test_an_answer_with_odd_tags_is_refused(think: str | None, answer: str, problem: str) -> None:
    if problem == "no_answer":
        assert split_columns(think, answer).answer == answer  # it has no closed tag, and stays a text
        return
    with pytest.raises(RowProblemError) as caught:
        split_columns(think, answer)
    assert problem in caught.value.problems


# (format, think, answer, whether training can write them)
WRITTEN = [
    ("think-answer", "It has fins.", "fish", True),
    ("think-answer", "The tag </think> ends it.", "fish", False),
    ("think-answer", "The tag <think> begins it.", "fish", False),
    ("think-answer", "I would write <answer>dog</answer> first.", "fish", True),  # a draft
    ("think-answer", "It has fins.", "the tag </answer>", False),
    ("think-answer", "It has fins.", "<answer>", False),
    ("deepseek-r1", "I would write <answer> first.", "fish", True),  # no tag of this format
    ("deepseek-r1", "The tag </think> ends it.", "fish", False),
    ("boxed", "The tag </think> ends it.", "fish", True),
    ("boxed", "It has fins.", "fish}", False),
    ("direct", "The tag </think> ends it.", "fish", True),  # which writes no reasoning
    ("deepseek-r1", "It has fins.", "fish <|im_end|>", False),  # the end of a turn
    ("llava-cot", "A <CAPTION> in it.", "fish", False),
    ("gthinker", "The tag </think> ends it.", "fish", True),
]


@pytest.mark.parametrize(("format", "think", "answer", "good"), WRITTEN)
def test_a_text_that_a_format_cannot_hold_is_a_bad_row(format: str, think: str, answer: str, good: bool) -> None:
    example = Example("1", "Which?", (), think, answer)
    (found,) = check_examples([example], written_as=format)
    parsed = parse(render(think, answer, format), format)
    same = (parsed.think, parsed.answer, parsed.problems) == (think if format != "direct" else None, answer, ())
    assert same == good
    assert isinstance(found, Example) == good
    if not good:
        assert found.problems == ("tag_in_text",)


def test_missing_reasoning_is_named_with_the_texts_that_nothing_reads(tmp_path: Path) -> None:
    row = {
        "question": "Which?",
        "answer": "fish",
        "hints": "It has fins.",
        "steps": ["It has fins.", "So."],
        "tags": ["a", "b"],
        "source": "web",
    }
    read_one(tmp_path, row)
    data = str(tmp_path / "rows.jsonl")
    stream = stream_data(data, on_bad_row="drop", written_as="think-answer")
    assert list(stream) == []
    assert [(bad.problems, bad.text) for bad in stream.bad_rows] == [(("no_think",), "Which? (not read: hints, steps)")]
    assert len(list(stream_data(data, written_as="direct"))) == 1
    assert find_written_problems(Example("1", "Q", (), None, " "), get_format("think-answer")) == []


def test_inspect_reports_what_training_would_drop(tmp_path: Path) -> None:
    rows = [{"question": "Which?", "think": "It has fins.", "answer": "fish"}]
    rows.append({"question": "What ends it?", "think": "The tag </think>.", "answer": "fish"})
    read_all(tmp_path, *rows)
    data = str(tmp_path / "rows.jsonl")
    found = inspect_data(data)
    assert [(bad.row, bad.problems) for bad in found.bad_rows] == [(2, ("tag_in_text",))]
    assert "fix the bad rows (tag_in_text 1)" in advise_changes(found)[0]
    assert not inspect_data(data, format="boxed").bad_rows


@pytest.mark.parametrize("format", ["think-answer", "deepseek-r1"])
def test_a_conversion_writes_columns_where_a_format_cannot_hold_the_texts(tmp_path: Path, format: str) -> None:
    examples = [Example("a", "Which?", (), "The tag </think>.", "fish"), Example("b", "Which?", (), "Fins.", "fish")]
    write_jsonl(examples, tmp_path / "out.jsonl", format=format)
    read = load_data(str(tmp_path / "out.jsonl")).examples
    assert [(one.think, one.answer) for one in read] == [(one.think, one.answer) for one in examples]


# (completion, the tag that is named, whether the format that the hint gives reads it)
HINTS = [
    ("<thinking>Fins.</thinking><answer>fish</answer>", "<thinking>", True),
    ("<THINK>Fins.</THINK>\n<ANSWER>fish</ANSWER>", "<THINK>", True),  # another case
    ("<Think>Fins.</Think><answer>fish</answer>", "<Think>", True),
    ("< think >Fins.</ think >< answer >fish</ answer >", "< think >", True),  # spaces
    ("<thought>Fins.</thought><answer>fish</answer>", "<thought>", True),
    ("<reasoning>Fins.</reasoning>\nfish", "<reasoning>", True),
    ("[THINK]Fins.[/THINK]fish", "[THINK]", True),
    ("<|begin_of_reasoning|>Fins.<|end_of_reasoning|>\n<|begin_of_answer|>fish<|end_of_answer|>", "<|begin_of_r", True),
    ("<think>Fins.</think><Answer>fish</Answer>", "<Answer>", True),
    ('<think depth="2">Fins.</think><answer>fish</answer>', '<think depth="2">', True),
    ('<think>Fins.</think><answer type="word">fish</answer>', '<answer type="word">', True),
    ("<seed:think>Fins.</seed:think>fish", "<seed:think>", True),
    ("&lt;think&gt;Fins.&lt;/think&gt;fish", "&lt;think&gt;", True),
    ("<thinking>Fins.</think><answer>fish</answer>", "<thinking>", False),  # two formats mixed
    ("<analysis>Fins.<answer>fish</answer>", "<analysis>", False),
]


@pytest.mark.parametrize(("completion", "tag", "readable"), HINTS)
def test_a_tag_of_no_format_is_named_with_the_format_to_give(
    tmp_path: Path, completion: str, tag: str, readable: bool
) -> None:
    hint = find_tag_hint(completion)
    assert hint is not None
    assert hint.startswith(tag)
    assert ("--reasoning_format" in hint) == readable
    row = {"messages": [asks("Which?"), says(completion)]}
    found = read_one(tmp_path, row)
    if isinstance(found, BadRow):
        assert hint in describe_inspection(inspect_data(str(tmp_path / "rows.jsonl")))
    if readable:
        given = read_yaml(hint.partition("'")[2].rpartition("'")[0], "hint")
        example = read_one(tmp_path, row, format=given)
        assert (example.think, example.answer) == ("Fins.", "fish")


@pytest.mark.parametrize("text", ["", "fish", "<b>Fins.</b> fish", *(shape.example for shape in FORMATS.values())])
def test_other_texts_get_no_hint(text: str) -> None:
    assert find_tag_hint(text) is None


def test_inspect_names_what_the_model_never_sees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = {"think": "It has fins.", "answer": "fish", "choices": ["fish", "dog"]}
    rows = [{"question": "Which?", "remark": "I am sure.", **common}, {"question": "Fish or dog?", **common}]
    rows.append({"system": "Be brief.", "question": "Who?", "think": "Fins.", "answer": ["fish", "cod"]})
    read_all(tmp_path, *rows)
    assert main(["inspect", str(tmp_path / "rows.jsonl")]) == 0
    shown = capsys.readouterr().out
    assert "1 samples have choices that the question does not show: --data_options.list_choices true" in shown
    assert "nothing reads the texts under remark 1" in shown
    assert "system texts: in 1 samples" in shown
    assert "several right answers: in 1 samples" in shown
    assert main(["inspect", str(tmp_path / "rows.jsonl"), "--data_options.list_choices", "true"]) == 0
    assert "does not show" not in capsys.readouterr().out
