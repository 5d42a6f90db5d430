"""Conversations: system texts, several turns, reasoning beside the content."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from balanced_thinking.data.bad_rows import BadRow, UnknownDataError
from balanced_thinking.data.example import Example, Turn, find_unread_texts
from balanced_thinking.data.rows import prompt_messages, to_dataset
from balanced_thinking.data.splits import belongs_to_split
from tests.data.row_files import SAID, asks, make_pictures, read_all, read_one, says

SYSTEM = {"role": "system", "content": "Be brief."}
COLUMNS = {"question": "Which animal?", "think": "It has a mane.", "answer": "horse"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_pictures(tmp_path)
    return tmp_path


SYSTEMS = [
    {"messages": [SYSTEM, asks("Which animal?"), says()]},
    {"messages": [{"role": "developer", "content": "Be brief."}, asks("Which animal?"), says()]},
    {
        "messages": [
            {"role": "System", "content": [{"type": "text", "text": "Be brief."}]},
            asks("Which animal?"),
            says(),
        ]
    },
    {"conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Which animal?"}, says()]},
    {"prompt": [SYSTEM, asks("Which animal?")], "completion": [says()]},
    {"prompt": "Which animal?", "completion": SAID, "system": "Be brief."},
    {
        "system": "Be brief.",
        "conversations": [{"from": "human", "value": "Which animal?"}, {"from": "gpt", "value": SAID}],
    },
    {"system": " Be brief. ", "messages": [SYSTEM, asks("Which animal?"), says()]},  # the same text twice
    {**COLUMNS, "system": "Be brief."},
    {**COLUMNS, "system": ["Be brief."]},
    {**COLUMNS, "system": SYSTEM},
    {**COLUMNS, "system": [SYSTEM]},
    {**COLUMNS, "system": [{"type": "text", "text": "Be brief."}]},
    {**COLUMNS, "system": {"text": "Be brief."}},
    {**COLUMNS, "system": {"from": "system", "value": "Be brief."}},
    {**COLUMNS, "system_prompt": "Be brief."},  # OpenOrca's
    {**COLUMNS, "system_prompt": ["Be brief. "]},
]


@pytest.mark.parametrize("row", SYSTEMS)
def test_a_system_text_is_the_first_message(
    folder: Path, row: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    example = read_one(folder, row)
    assert isinstance(example, Example), example
    assert prompt_messages(example) == [SYSTEM, asks("Which animal?")]
    assert to_dataset([example])[0]["prompt"] == [SYSTEM, asks("Which animal?")]
    assert {"system", "system_prompt"}.isdisjoint(example.meta)
    with caplog.at_level(logging.WARNING):
        assert prompt_messages(read_one(folder, row, system="drop")) == [asks("Which animal?")]
    assert "the system text of 1 samples was left out" in caplog.text


MARKS = [{"weight": 0}, {"weight": 0.0}, {"loss": False}, {"train": False}, {"loss_scale": 0.0}, {"loss_weight": 0}]


@pytest.mark.parametrize("mark", MARKS)
def test_a_reply_that_is_marked_so_is_not_trained_on(folder: Path, mark: dict[str, Any]) -> None:
    talk = [asks("Which animal?"), says(**mark), asks("And now?"), says()]
    found = read_all(folder, {"messages": talk}, turns="all")
    assert [(one.question, len(one.history)) for one in found] == [("And now?", 2)]
    assert read_all(folder, {"messages": [asks("Q"), says(weight=1), asks("R"), says(loss=True)]}, turns="all")[1:]
    for turns in ("last", "all"):
        (bad,) = read_all(folder, {"messages": talk[:2]}, turns=turns)
        assert bad.problems == ("not_for_training",)
    (bad,) = read_all(folder, {"messages": [*talk[:2], talk[2], says(**mark)]}, turns="all")
    assert bad.problems == ("not_for_training",)


def test_a_weight_of_a_turn_that_is_not_used_is_a_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for reply in (says(loss_scale=1.0), says(loss_weight=1), says(loss=True), says(weight=None), says()):
        assert isinstance(read_one(folder, {"messages": [{**asks("Q"), "loss_weight": 0.0}, reply]}), Example)
    assert caplog.text == ""
    for weight in ({"loss_scale": 2.0}, {"loss_weight": 0.5}, {"weight": 3}):
        assert read_one(folder, {"messages": [asks("Q"), says(**weight)]}).meta[f"turn.{next(iter(weight))}"]
    assert caplog.text.count("1 samples have turns with a weight other than 0 and 1") == 3


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [asks("Q"), says()]},  # ms-swift's KTO
        {"conversations": [asks("Q"), says()]},
        {"prompt": "Q", "completion": "<think>a</think><answer>b</answer>"},  # TRL's
    ],
)
def test_a_reply_that_is_not_wanted_is_not_trained_on(folder: Path, row: dict[str, Any]) -> None:
    found = read_one(folder, row | {"label": False})
    assert found.problems == ("not_for_training",)
    assert "rename the column" in found.text
    for label in (True, None, 0, "no"):
        assert isinstance(read_one(folder, row | {"label": label}), Example)


def test_a_turn_of_reasoning_alone_is_joined_with_its_answer(folder: Path) -> None:
    """As in ms-swift's rows that give the two a weight each."""

    def said(*replies: dict[str, Any]) -> Any:
        return read_one(folder, {"messages": [asks("Which?"), *replies]})

    thought = {"role": "assistant", "content": f"<think>\n{THOUGHT}\n</think>\n"}
    for answer in ("horse", "<answer>horse</answer>"):
        example = said({**thought, "loss_scale": 1.0}, {"role": "assistant", "content": answer, "loss_scale": 2.0})
        assert (example.think, example.answer, example.meta["turn.loss_scale"]) == (THOUGHT, "horse", 2.0)
    for replies in (
        [thought, {"role": "assistant", "content": "horse", "loss": False}],  # only one of them is to be trained on
        [{"role": "assistant", "content": f"<think>{THOUGHT}"}, says()],
        [{"role": "assistant", "content": "Hm."}, says()],
        [says(), says()],
        [thought, says(reasoning_content="Other.")],
    ):
        assert said(*replies).problems == ("multi_turn",)


PART = {"type": "text", "value": "<answer>horse</answer>"}


@pytest.mark.parametrize(
    ("content", "think"),
    [
        ([{"type": "text", "value": "<think>It has a mane.</think><answer>horse</answer>"}], "It has a mane."),
        ([{"type": "reasoning", "value": "It has a mane."}, PART], "It has a mane."),
        ([{"type": "thinking", "thinking": "It has a mane.", "value": "no"}, PART], "It has a mane."),
    ],
)
def test_parts_may_have_their_text_under_value(folder: Path, content: list[Any], think: str) -> None:
    """LLaMA-Factory's newer form."""
    asked = asks([{"type": "image_url", "value": "one.png"}, {"type": "text", "value": "Which?"}])
    example = read_one(folder, {"messages": [asked, {"role": "assistant", "content": content}]})
    assert isinstance(example, Example), example
    assert (example.question, example.think, example.answer) == ("Which?", think, "horse")
    assert [image.name for image in example.images] == ["one.png"]
    assert example.meta.keys() <= {"row", "read_as"}


def test_a_value_beside_the_text_of_a_part_is_reported(folder: Path) -> None:
    asked = asks([{"type": "text", "text": "Which?", "value": "Another question"}])
    assert read_one(folder, {"messages": [asked, says()]}).meta["turn.part.value"] == "Another question"


def test_a_part_may_say_which_picture_is_there(folder: Path) -> None:
    parts = [{"type": "image", "index": 1, "text": None}, {"type": "image", "index": 0, "text": None}]
    row = {"messages": [asks([*parts, {"type": "text", "text": "Same?"}]), says()], "images": ["one.png", "two.png"]}
    assert [image.name for image in read_one(folder, row).images] == ["two.png", "one.png"]

    row["messages"][0]["content"].append({"type": "text", "text": " What does <image> mean?"})
    assert read_one(folder, row).problems == ("image_count",)


@pytest.mark.parametrize("more", [{}, {"question": "And the other?"}])
def test_a_conversation_that_ends_with_the_user_is_not_a_prompt(folder: Path, more: dict[str, Any]) -> None:
    row = {"messages": [asks("Which animal?"), says(), asks("Thanks.")], "answer": "horse", **more}
    assert read_one(folder, row).problems == ("multi_turn",)


# (turns of user and assistant, what is wrong)
ORDERS = [
    ([asks("Which?"), says(), asks("Thanks.")], "multi_turn"),  # the user has the last word
    ([asks("Which?"), says(), says()], "multi_turn"),  # two replies
    ([says("Hello."), asks("Which?"), says()], "multi_turn"),  # the assistant begins
    ([asks("Which?"), SYSTEM, says()], "multi_turn"),  # a system text in the middle
    ([asks("Which?"), says(), SYSTEM, asks("And?"), says()], "multi_turn"),
    ([SYSTEM, says()], "multi_turn"),  # no question
    ([asks("Which?")], "no_answer"),
    ([asks("Which?"), {"role": "tool", "content": "7"}, says()], "unknown_schema"),
    ([{"role": ["user"], "content": "Which?"}, says()], "unknown_schema"),
    ([{"from": {"name": "user"}, "value": "Which?"}, says()], "unknown_schema"),
    ([asks("Which?"), says("", tool_calls=[{"name": "zoom"}])], "unknown_schema"),
    ([asks("Which?"), says(" ")], "no_answer"),
    ([{"role": "system", "content": "See <image>."}, asks("Which?"), says()], "image_count"),
]


@pytest.mark.parametrize(("turns", "problem"), ORDERS)
def test_turns_without_a_meaning_are_bad_rows(folder: Path, turns: list[Any], problem: str) -> None:
    for row in ({"messages": turns}, {"conversations": turns}):
        found = read_one(folder, row)
        assert isinstance(found, BadRow)
        assert problem in found.problems


def test_two_different_system_texts_are_a_bad_row(folder: Path) -> None:
    found = read_one(folder, {"system": "Be long.", "messages": [SYSTEM, asks("Which?"), says()]})
    assert found.problems == ("two_systems",)


TALK = [asks("Which animal?"), says(), asks("What has it?"), says("<think>I look.</think><answer>mane</answer>")]
EARLIER = (Turn("user", "Which animal?"), Turn("assistant", SAID))
TALKS = [
    {"messages": TALK},
    {"conversations": [{"from": turn["role"], "value": turn["content"]} for turn in TALK]},
    {"prompt": TALK[:3], "completion": TALK[3:]},
    {"prompt": TALK[:3], "completion": TALK[3]["content"]},
    {"question": "What has it?", "think": "I look.", "answer": "mane", "history": TALK[:2]},
    {"question": "What has it?", "think": "I look.", "answer": "mane", "history": [["Which animal?", SAID]]},
    {"prompt": "What has it?", "completion": TALK[3]["content"], "history": [["Which animal?", SAID]]},
    {"messages": [asks("Which"), asks("animal?"), *TALK[1:]]},  # two turns of the user are one
    {"messages": json.dumps(TALK)},  # a list as text
]


@pytest.mark.parametrize("row", TALKS)
def test_the_last_turn_is_trained_on_or_each(folder: Path, row: dict[str, Any]) -> None:
    last = read_one(folder, {"id": "t", **row})
    assert isinstance(last, Example), last
    first_text = (
        "Which\nanimal?" if row.get("messages") == [asks("Which"), asks("animal?"), *TALK[1:]] else "Which animal?"
    )
    earlier = (EARLIER[0].__class__("user", first_text), EARLIER[1])
    assert (last.id, last.question, last.think, last.answer) == ("t", "What has it?", "I look.", "mane")
    assert last.history == earlier
    first, second = read_all(folder, {"id": "t", **row}, turns="all")
    assert (first.id, first.question, first.think, first.answer) == ("t#1", first_text, "It has a mane.", "horse")
    assert (first.history, second.id, second.history) == ((), "t#2", earlier)
    assert [one["role"] for one in prompt_messages(second)] == ["user", "assistant", "user"]


def test_each_turn_has_the_pictures_that_were_shown_before_it(folder: Path) -> None:
    turns = [asks("<image>\nWhich animal?"), says(), asks("And in <image>?"), says()]
    row = {"messages": turns, "images": ["one.png", "two.png"]}
    first, second = read_all(folder, row, turns="all")
    assert [len(example.images) for example in (first, second)] == [1, 2]
    assert second.history[0] == Turn("user", "Which animal?", (0,))
    assert (second.question, second.image_places) == ("And in ?", (7,))
    assert read_one(folder, row).images == second.images
    without = read_one(folder, {"messages": TALK, "image": "one.png"})  # no placeholder: with the first question
    assert (without.history[0].image_places, without.image_places) == ((0,), ())
    assert read_one(folder, row | {"images": ["one.png"]}).problems == ("image_count",)


def test_one_bad_turn_leaves_the_others(folder: Path) -> None:
    turns = [asks("Which?"), says("I do not know."), *TALK]
    found = read_all(folder, {"id": "t", "messages": turns}, turns="all")
    assert [one.id for one in found] == ["t#2", "t#3", "t#1"]
    assert found[2].problems == ("no_think", "no_answer")
    assert isinstance(read_one(folder, {"messages": turns}), Example)


def test_all_turns_of_a_conversation_are_in_one_split(folder: Path) -> None:
    rows = [{"messages": [asks(f"Which {k}?"), says(), *TALK[2:]]} for k in range(12)]
    examples = read_all(folder, *rows, turns="all")
    splits = [[belongs_to_split(one, name) for name in ("train", "validation", "test")] for one in examples]
    assert splits[::2] == splits[1::2]
    assert len({tuple(one) for one in splits}) > 1


@pytest.mark.parametrize(("name", "value"), [("turns", "both"), ("system", "remove"), ("list_choices", "yes")])
def test_an_unknown_setting_is_refused(folder: Path, name: str, value: str) -> None:
    with pytest.raises(UnknownDataError, match=f"option '{name}'"):
        read_one(folder, COLUMNS, **{name: value})


LISTED = [{"role": "system", "content": "Be brief."}, asks("Hello."), says("Hi."), asks("Which?")]
PARTS = [{"type": "text", "text": "Which?"}]
REST = {"think": "It has a mane.", "answer": "horse"}
# (a row, the number of earlier turns)
TEXTS_OF_LISTS: list[tuple[dict[str, Any], int]] = [
    ({"prompt": json.dumps(LISTED), **REST}, 2),
    ({"prompt": str(LISTED), **REST}, 2),  # as pandas writes it
    ({"prompt": str(LISTED[-1:]), **REST}, 0),
    ({"prompt": str(LISTED[-1]), **REST}, 0),  # one turn without its list
    ({"prompt": json.dumps(PARTS), **REST}, 0),
    ({"prompt": PARTS, **REST}, 0),
    ({"prompt": str(LISTED), "completion": SAID}, 2),
    ({"prompt": str(LISTED), "completion": str([says()])}, 2),
    ({"prompt": json.dumps(PARTS), "completion": json.dumps([{"type": "text", "text": SAID}])}, 0),
    ({"prompt": str(LISTED), "reward_model": {"ground_truth": "horse"}, "think": "It has a mane."}, 2),
    ({"messages": json.dumps([LISTED[0], LISTED[-1]]), "solution": SAID}, 0),
    ({"messages": json.dumps([*LISTED[:-1], asks('Which? "a" "b"'), says()])}, 2),  # no NumPy: JSON
    ({"question": json.dumps(PARTS), **REST}, 0),
    ({"question": str(PARTS), **REST}, 0),
    ({"question": json.dumps(LISTED[-1:]), **REST}, 0),
    ({"question": "['Which?']", **REST}, 0),
    ({"problem": str(PARTS), "solution": SAID}, 0),
    ({"question": "Which?", "history": str([["Hello.", "Hi."]]), **REST}, 2),
    ({"question": "Which?", "history": json.dumps(LISTED[1:3]), "system": "['Be brief.']", **REST}, 2),
    ({"question": "Which?", "system": str(LISTED[:1]), **REST}, 0),
]


@pytest.mark.parametrize(("row", "earlier"), TEXTS_OF_LISTS)
def test_turns_that_are_written_as_text_are_turns(folder: Path, row: dict[str, Any], earlier: int) -> None:
    example = read_one(folder, row)
    assert isinstance(example, Example), example
    question = example.question.removesuffix(' "a" "b"')
    assert (question, example.think, example.answer) == ("Which?", "It has a mane.", "horse")
    assert [turn.text for turn in example.history] == ["Hello.", "Hi."][:earlier]
    assert (example.system == "Be brief.") is ("Be brief." in str(row))
    assert find_unread_texts(example) == []


UNREADABLE_LISTS = [
    str(LISTED).replace("}, {", "}\n {"),  # NumPy, without commas
    f"array({LISTED}, dtype=object)",
    str([asks([{"type": "text"}])]).replace("[{'type': 'text'}]", "array([{'type': 'text'}], dtype=object)"),
    str([asks("Which? " * 40_000)]),  # longer than Python's may be
    json.dumps(LISTED)[:60],  # a cell that was cut
    str([{"role": "tool", "content": "7"}, asks("Which?")]),
    "{'text': 'Which?'}",
]


@pytest.mark.parametrize("text", UNREADABLE_LISTS)
def test_turns_in_a_text_that_cannot_be_read_are_refused(folder: Path, text: str) -> None:
    for row in ({"question": text, **REST}, {"prompt": text, **REST}, {"prompt": text, "completion": SAID}):
        found = read_one(folder, row)
        assert isinstance(found, BadRow), found
        assert found.problems == ("not_text",)
        assert "json.dumps" in found.text
    talk = read_one(folder, {"messages": text, **REST})
    assert talk.problems == (("unknown_schema",) if "tool" in text else ("not_text",))
    assert read_one(folder, {"question": "Which?", "system": text, **REST}).problems == ("not_text",)


@pytest.mark.parametrize(("write", "words"), [(str, 30_000), (json.dumps, 100_000)])
def test_long_turns_that_are_written_as_text_are_turns(folder: Path, write: Any, words: int) -> None:
    thought = " ".join(["It has a mane."] * (words // 4))
    turns = [asks("Which?"), says(f"<think>{thought}</think><answer>horse</answer>")]
    for row in ({"messages": write(turns)}, {"prompt": write(turns[:1]), "completion": write(turns[1:])}):
        assert read_one(folder, row).think == thought


@pytest.mark.parametrize("text", ["['Which?', 'And?']", "['Which?' 'And?']"])
def test_several_questions_in_a_text_are_refused(folder: Path, text: str) -> None:
    assert read_one(folder, {"question": text, **REST}).problems == ("not_text",)
    assert isinstance(read_one(folder, {"prompt": text, "completion": SAID}), BadRow)


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2, 3]",
        '["a", "b"]',
        '[{"type": "circle"}]',
        '{"type": "circle", "radius": 3}',
        '[{"from": "A", "to": "B"}]',
        '[{"role": "user", "content": "Hi."}] Who says it?',
        "[Which?]",
    ],
)
def test_other_texts_in_brackets_are_questions(folder: Path, text: str) -> None:
    for row in ({"question": text, **REST}, {"prompt": text, **REST}, {"prompt": text, "completion": SAID}):
        example = read_one(folder, row)
        assert isinstance(example, Example), example
        assert example.question == text


# (the last turn of a prompt, the picture or the problem)
ASKED: list[tuple[dict[str, Any], str]] = [
    (asks("Which?", images=["one.png"]), "one.png"),
    (asks("Which?", image="one.png"), "one.png"),
    (asks("Which?", image={"path": "one.png"}), "one.png"),
    ({"from": "human", "value": "Which?", "image": "one.png"}, "one.png"),
    (asks("<image>Which?", images=["one.png"]), "one.png"),
    (asks("Which?", video="a.mp4"), "unread_media"),
    (asks("Which?", image_path="one.png"), "unread_image"),
    (asks("Which?", images=["one.png"], image="two.png"), "unread_image"),
]


@pytest.mark.parametrize(("turn", "expected"), ASKED)
def test_the_last_turn_of_a_prompt_keeps_its_picture(folder: Path, turn: dict[str, Any], expected: str) -> None:
    for turns in ([turn], [*LISTED[1:3], turn]):
        for row in (
            {"prompt": turns, **REST},
            {"messages": turns[-1:], "history": turns[:-1], "solution": SAID},
            {"messages": turns[-1:], "history": turns[:-1], **REST},
            {"prompt": json.dumps(turns), **REST},
            {"prompt": turns, "completion": SAID},
        ):
            found = read_one(folder, row)
            if isinstance(found, BadRow):
                assert found.problems == (expected,)
                continue
            assert [image.name for image in found.images] == [expected]
            assert (found.question, found.think, found.answer) == ("Which?", "It has a mane.", "horse")
            assert len(found.history) == 2 * (len(turns) > 1)
    named = read_one(folder, {"prompt": [asks("Which?", context="It has a mane.")], **REST})
    assert find_unread_texts(named) == ["turn.context"]


THOUGHT = "It has a mane."
# Turns of the assistant, or rows, that all mean the same.
BESIDE = [
    says("horse", reasoning_content=THOUGHT),
    says("<answer>horse</answer>", reasoning_content=THOUGHT),
    says("horse", reasoning=THOUGHT),
    says("horse", thinking=THOUGHT),
    says("horse", thought=f"<think>{THOUGHT}</think>"),
    says("horse", reasoning_content=[{"type": "text", "text": THOUGHT}]),
    *(
        says("horse", **{name: THOUGHT})
        for name in ("reasoning_text", "thinking_content", "rationale", "cot", "thoughts")
    ),
    says("horse", reasoning_details=[{"type": "reasoning.text", "text": THOUGHT}]),
    says("horse", reasoning=THOUGHT, reasoning_details=[{"type": "reasoning.encrypted", "data": "x"}]),
    says("horse", reasoning_content=THOUGHT, reasoning=THOUGHT),  # the same under two names
    says(SAID, reasoning_content=None, thinking=""),  # Arrow's nulls beside tags
    says(SAID, reasoning_content=THOUGHT),  # the same in tags
    says([{"type": "thinking", "thinking": THOUGHT}, {"type": "text", "text": "horse"}]),
    says([{"type": "reasoning", "text": THOUGHT}, {"type": "output_text", "text": "horse"}]),
    says([{"type": "text", "text": THOUGHT, "thought": True}, {"type": "text", "text": "horse"}]),
    says(r"\boxed{horse}", reasoning_content=THOUGHT),
    says([{"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]}, {"type": "text", "text": "horse"}]),
    says([{"type": "reasoning", "summary": [{"type": "summary_text", "text": THOUGHT}]}, "horse"]),
    says([{"type": "reasoning", "content": [{"type": "reasoning_text", "text": THOUGHT}], "summary": []}, "horse"]),
    says([{"type": "text", "text": "\n"}, {"type": "thinking", "thinking": THOUGHT}, "hor", "se"]),
    says([{"type": "thinking", "thinking": "It has"}, " ", {"type": "thinking", "thinking": "a mane."}, "horse"]),
    says(["horse", {"type": "thinking", "thinking": THOUGHT}]),
    says([{"type": "thinking", "thinking": THOUGHT}, "horse", {"type": "thinking", "thinking": ""}]),
]


@pytest.mark.parametrize("turn", BESIDE)
def test_reasoning_beside_the_content_is_the_thinking(folder: Path, turn: dict[str, Any]) -> None:
    example = read_one(folder, {"messages": [asks("Which?"), turn]})
    assert isinstance(example, Example), example
    assert ((example.think or "").replace("\n\n", " "), example.answer) == (THOUGHT, "horse")


ROWS = [
    {"question": "Which?", "answer": "horse", name: THOUGHT}
    for name in (
        "think",
        "reasoning",
        "reasoning_content",
        "thinking",
        "thought",
        "rationale",
        "cot",
        "chain_of_thought",
        "reasoning_text",
        "thinking_content",
    )
]


@pytest.mark.parametrize(
    "row",
    [
        *ROWS,
        {"question": "Which?", "answer": "horse", "think": [THOUGHT, None]},
        {"prompt": "Which?", "completion": "horse", "reasoning": THOUGHT},
    ],
)
def test_reasoning_in_a_column_is_the_thinking(folder: Path, row: dict[str, Any]) -> None:
    example = read_one(folder, row)
    assert (example.think, example.answer, set(example.meta) - {"row", "read_as"}) == (THOUGHT, "horse", set())


@pytest.mark.parametrize("flag", ["on", "off", "Enabled", "no", True, False])
def test_a_flag_in_a_column_is_not_the_thinking(folder: Path, flag: Any) -> None:
    """As in Nemotron's data, where `reasoning` is `on` or `off`."""
    said = f"<think>{THOUGHT}</think><answer>horse</answer>"
    for row in (
        {"messages": [asks("Which?"), says(said)]},
        {"question": "Which?", "answer": said},
        {"question": "Which?", "answer": "horse", "reasoning_content": THOUGHT},
    ):
        example = read_one(folder, row | {"reasoning": flag, "thinking": flag})
        assert (example.think, example.answer) == (THOUGHT, "horse")
    without = read_one(folder, {"question": "Which?", "answer": "horse", "reasoning": flag})
    assert (without.think, without.meta["reasoning"]) == (None, flag)


THINKING = {"type": "thinking", "thinking": THOUGHT}
# (turn of the assistant, the problem)
UNCLEAR = [
    (says("<think>Other.</think><answer>horse</answer>", reasoning=THOUGHT), "multiple_thinks"),
    (says("It is one. <answer>horse</answer>", reasoning=THOUGHT), "text_between"),
    (says("<answer>horse</answer> Bye.", reasoning=THOUGHT), "text_after_answer"),
    (says(None, reasoning=THOUGHT), "no_answer"),
    (says("horse", reasoning={"steps": 3}), "not_text"),
    (says([{"type": "thinking", "thinking": THOUGHT}]), "no_answer"),
    (says([{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "horse"}]), "unknown_schema"),
    *((says("horse", reasoning=flag), "no_think") for flag in (True, "on", "off ", "Enabled")),
    (says([THINKING, "Hm.", THINKING, "horse"]), "text_between"),  # not "Hm.horse"
    (says([THINKING, "Hm.", THINKING, THINKING, {"type": "output_text", "text": "horse"}]), "text_between"),
    (says([THINKING, "Hm.", {"type": "text", "text": "I look.", "thought": True}, "horse"]), "text_between"),
    (says(["Let me see.", THINKING, "horse"]), "text_before_think"),
    (says([{"type": "thinking", "thinking": [{"type": "image"}]}, "horse"]), "not_text"),
]


@pytest.mark.parametrize(("turn", "problem"), UNCLEAR)
def test_unclear_reasoning_is_a_bad_row(folder: Path, turn: dict[str, Any], problem: str) -> None:
    found = read_one(folder, {"messages": [asks("Which?"), turn]})
    assert isinstance(found, BadRow)
    assert problem in found.problems


def test_a_text_in_a_turn_that_is_not_read_is_named(folder: Path) -> None:
    encrypted = says("horse", reasoning_details=[{"type": "reasoning.encrypted", "data": "x"}])
    assert "reasoning_details" in read_one(folder, {"messages": [asks("Which?"), encrypted]}).text
    talk = [asks("Which?", context="It has a mane."), says("horse", analysis="It is one.")]
    assert read_one(folder, {"messages": talk}).text == "horse (not read: turn.analysis)"
    example = read_one(folder, {"messages": [talk[0], says(name="Bot")]})
    assert find_unread_texts(example) == ["turn.context"]


def test_a_question_in_the_users_own_thinking_is_refused(folder: Path) -> None:
    found = read_one(folder, {"messages": [asks("Which?", reasoning="Hm."), says()]})
    assert found.problems == ("unknown_schema",)
