"""Pictures keep their places in the text: in rows, in prompts, in data sets, after a conversion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from balanced_thinking.data import rows
from balanced_thinking.data.bad_rows import BadRow, RowError
from balanced_thinking.data.convert import write_jsonl
from balanced_thinking.data.example import Example, Turn
from balanced_thinking.data.load import load_data
from balanced_thinking.data.rows import prompt_messages, to_dataset, to_prompts_dataset
from balanced_thinking.evaluation.engines.chat_messages import chat_messages
from tests.data.row_files import SAID, asks, make_pictures, read_one, says

IMAGE = {"type": "image"}


def text(said: str) -> dict[str, str]:
    return {"type": "text", "text": said}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_pictures(tmp_path)
    return tmp_path


# (question, number of pictures, the question without placeholders, places)
PLACED = [
    ("Which animal?", 1, "Which animal?", ()),  # no placeholder: before the text
    ("<image>\nWhich animal?", 1, "Which animal?", ()),  # at the start, as most data have it
    ("<image><image>\n\nWhich animal?", 2, "Which animal?", ()),  # both at the start
    ("<image>\n<image>\nWhich animal?", 2, "Which animal?", ()),  # on lines of their own
    ("Which animal is in <image>?", 1, "Which animal is in ?", (19,)),  # in the middle
    ("Which animal?\n<image>", 1, "Which animal?\n", (14,)),  # at the end
    ("First<image>then", 1, "Firstthen", (5,)),  # between two words
    ("Is <image> like <image>?", 2, "Is  like ?", (3, 9)),  # two places
    ("<image>\nIs it like <image>?", 2, "Is it like ?", (0, 11)),  # the start and a later place
    ("A: <image> <image> same?", 2, "A:   same?", (3, 4)),  # side by side
    ("A: <image>\nB: <image>\nWhich?", 2, "A: \nB: \nWhich?", (3, 7)),  # a line each
    ("Is <IMAGE> like <Image>?", 2, "Is  like ?", (3, 9)),  # other cases
    ("Is <image_1> like <image_2>?", 2, "Is  like ?", (3, 9)),  # numbered
    ("<image 1> Which animal?", 1, "Which animal?", ()),  # numbered, at the start
    ("Is <|vision_start|><|image_pad|><|vision_end|> one?", 1, "Is  one?", (3,)),  # Qwen's own spelling
    ("Is <img> one?", 1, "Is  one?", (3,)),  # a spelling that HTML has, with as many pictures
    ("Is <image_placeholder> like <image_placeholder>?", 2, "Is  like ?", (3, 9)),  # DeepSeek-VL
    ("Is <ImageHere> like <ImageHere>?", 2, "Is  like ?", (3, 9)),  # XComposer
    ("Is <image id=1> like <image id=2>?", 2, "Is  like ?", (3, 9)),
    ("Is [image] like [Image]?", 2, "Is  like ?", (3, 9)),
    ("Is {image} like {{ image }}?", 2, "Is  like ?", (3, 9)),
    ("(<image>./</image>)\nWhich animal?", 1, "Which animal?", ()),  # MiniCPM
    ("<image></image>Which animal?", 1, "Which animal?", ()),
    ("Is <image> </image> one?", 1, "Is  one?", (3,)),
    ("<image>./</image>\n<image>./</image>\nWhich animal?", 2, "Which animal?", ()),
    ("<Image><ImageHere></Image>Which animal?", 1, "Which animal?", ()),  # XComposer
    ("Is <img><image></img> one?", 1, "Is  one?", (3,)),  # InternVL
    ("<img><IMG_CONTEXT><IMG_CONTEXT></img>\nWhich animal?", 1, "Which animal?", ()),
    ("Is <|vision_start|><image><|vision_end|> one?", 1, "Is  one?", (3,)),
    ("Is <|begin_of_image|><|image|><|end_of_image|> one?", 1, "Is  one?", (3,)),  # GLM
    ("<|media_start|>image<|media_content|><|media_pad|><|media_end|>Which animal?", 1, "Which animal?", ()),  # Kimi
    ("<im_start><image><im_end>\nWhich animal?", 1, "Which animal?", ()),  # LLaVA
    ("<fake_token_around_image><image><fake_token_around_image>Which animal?", 1, "Which animal?", ()),  # Idefics
    ("Is <begin_of_image><image_placeholder><end_of_image> one?", 1, "Is  one?", (3,)),
    ("<img></img>Which animal?", 1, "Which animal?", ()),
    ("Is <pic> like <picture/>?", 2, "Is  like ?", (3, 9)),
    ("Is <image > like <image/>?", 2, "Is  like ?", (3, 9)),
    ("Is <photo> like [picture]?", 2, "Is  like ?", (3, 9)),
    ("<img>cat</img> is what?", 1, "<img>cat</img> is what?", ()),  # about HTML
    ("What does <img></img> mean?", 0, "What does <img></img> mean?", ()),
    ("What do <img></img> and <img></img> mean?", 1, "What do <img></img> and <img></img> mean?", ()),
    ("<image>\nIs <image href='a'></image> SVG?", 1, "Is <image href='a'></image> SVG?", ()),
    ("<image>\nWhat does <|image_pad|> mean?", 1, "What does <|image_pad|> mean?", ()),  # a mention
    ("<image>\n<image_text>A cat.</image_text> <image>", 2, "<image_text>A cat.</image_text> ", (0, 32)),
    ("See [image](a.html) and $\\text{image}(f)$.", 1, "See [image](a.html) and $\\text{image}(f)$.", ()),
    ("Is [image] like [image]?", 1, "Is [image] like [image]?", ()),
    ("What does [image] mean?", 0, "What does [image] mean?", ()),
    ("What does <img> mean?", 0, "What does <img> mean?", ()),  # and without a picture
    ("What do <img> and <img> mean?", 1, "What do <img> and <img> mean?", ()),  # another number of them
]


@pytest.mark.parametrize(("question", "count", "expected", "places"), PLACED)
def test_placeholders_become_places(folder: Path, question: str, count: int, expected: str, places: Any) -> None:
    for row in (
        {"question": question, "think": "It has a mane.", "answer": "horse"},
        {"prompt": question, "completion": SAID},
        {"messages": [asks(question), says()]},
    ):
        example = read_one(folder, row | {"images": ["one.png", "two.png"][:count]})
        assert isinstance(example, Example), example
        assert (example.question, example.image_places) == (expected, places)


def test_numbers_say_which_picture_is_meant(folder: Path) -> None:
    row = {"question": "Is <image_2> like <image_1>?", "answer": "no", "images": ["one.png", "two.png"]}
    example = read_one(folder, row)
    assert [image.name for image in example.images] == ["two.png", "one.png"]


@pytest.mark.parametrize(
    ("question", "count"),
    [
        ("<image> and <image>?", 1),  # more than pictures
        ("<image>?", 0),  # without any
        ("<image> which?", 2),  # fewer than pictures
        ("<IMAGE> which?", 0),  # other spellings without a picture
        ("<image 1> which?", 0),
        ("<|image_pad|> which?", 0),
        ("<image_1> and <image_1>?", 2),  # one number twice
        ("<image_1> and <image_3>?", 2),  # a number without a picture
    ],
)
def test_counts_that_do_not_fit_are_bad_rows(folder: Path, question: str, count: int) -> None:
    found = read_one(folder, {"question": question, "answer": "no", "images": ["one.png", "two.png"][:count]})
    assert isinstance(found, BadRow)
    assert found.problems == ("image_count",)


def test_a_place_before_much_white_space_takes_no_minutes(folder: Path) -> None:
    row = {"question": f"<image>{' ' * 10**5}Which animal?", "answer": "no", "images": ["one.png"]}
    assert read_one(folder, row).question == "Which animal?"


@pytest.mark.parametrize(
    "question",
    [
        "<image>cat</image> Which?",  # a closing tag would stay
        "<image_1></image_1> Which?",
        "<image_id>0</image_id><image>./</image>\nWhich?",
        "<|my_image_start|><image><|my_image_end|>Which?",
        "<image> <|vision_end|>Which?",
        "<|media_start|>video<|media_content|><|media_pad|><|media_end|>Which?",
        "<Image>./</Images></Image>\nWhich?",
    ],
)
def test_a_tag_that_would_stay_beside_a_placeholder_is_refused(folder: Path, question: str) -> None:
    found = read_one(folder, {"question": question, "answer": "no", "images": ["one.png"]})
    assert isinstance(found, BadRow), found
    assert found.problems in (("unknown_placeholder",), ("special_token",))


@pytest.mark.parametrize(
    ("question", "problem"),
    [
        ("What does <|image_pad|> mean?", "special_token"),  # a mention: Qwen's
        ("What does <start_of_image> mean?", "special_token"),  # Gemma's
        ("Is [IMG] a tag or not?", "special_token"),  # Pixtral's
        ("Look.\nIs <|image|> a token?", "special_token"),  # on a later line
        ("<|image_pad|>\nWhich animal?", None),  # on a line of its own
        ("<|image|>Which animal?", None),  # at the start
        ("Which animal? <start_of_image>", None),  # at the end
        ("Is <|vision_start|><|image_pad|><|vision_end|> one?", None),  # complete: a place
        ("What does <image> mean?", None),  # the common spelling is always a place
    ],
)
def test_a_mention_of_a_model_s_token_is_no_place(folder: Path, question: str, problem: str | None) -> None:
    found = read_one(folder, {"question": question, "answer": "no", "images": ["one.png"]})
    assert getattr(found, "problems", (None,)) == (problem,)


PARTS = [
    [text("Is "), IMAGE, text(" one?")],  # TRL
    [text("Is "), {"type": "image", "image": "one.png"}, text(" one?")],  # the path inside
    [text("Is "), {"type": "image", "path": "one.png"}, text(" one?")],  # transformers
    [text("Is "), {"type": "image", "url": "one.png"}, text(" one?")],
    [text("Is "), {"type": "image_url", "image_url": {"url": "one.png"}}, text(" one?")],  # OpenAI
    [{"type": "input_text", "text": "Is "}, {"type": "input_image", "image_url": "one.png"}, text(" one?")],
    ["Is ", {"image": "one.png"}, {"text": " one?"}],  # no types
    [text("Is "), {"type": "image", "text": None}, {"type": "text", "text": " one?", "image": None}],  # Arrow's nulls
]


@pytest.mark.parametrize("parts", PARTS)
def test_parts_keep_their_order(folder: Path, parts: list[Any]) -> None:
    inside = any(
        part.get("image") or part.get("url") or part.get("path") or part.get("image_url")
        for part in parts
        if isinstance(part, dict)
    )
    example = read_one(folder, {"messages": [asks(parts), says()], **({} if inside else {"images": ["one.png"]})})
    assert isinstance(example, Example), example
    assert (example.question, example.image_places, example.images) == ("Is  one?", (3,), (folder / "one.png",))
    assert prompt_messages(example) == [asks([text("Is "), IMAGE, text(" one?")])]


def examples() -> list[Example]:
    red, blue = (Image.new("RGB", (6, 6), color) for color in ("red", "blue"))
    plain = Example("plain", "Which?", (red,), "It.", "horse")
    shown = (Turn("user", "See  here", (4,)), Turn("assistant", "Yes."))
    return [
        plain,
        replace(plain, id="none", images=(), alternatives=("pony",)),
        replace(plain, id="end", question="Which? ", image_places=(7,)),
        replace(plain, id="two", question="Is  like ?", images=(red, blue), image_places=(3, 9)),
        replace(plain, id="system", system="Be brief."),
        replace(plain, id="talk", history=(Turn("user", "Hello?", (0,)), Turn("assistant", "Hello."))),
        replace(plain, id="later", history=(Turn("user", "Hello?"), Turn("assistant", "Hello."))),
        replace(plain, id="both", system="S", images=(red, blue), history=shown),
    ]


def test_a_prompt_is_text_where_pictures_are_at_its_start_and_parts_elsewhere() -> None:
    contents = {example.id: [one["content"] for one in prompt_messages(example)] for example in examples()}
    assert contents == {
        "plain": ["Which?"],
        "none": ["Which?"],
        "end": [[text("Which? "), IMAGE]],
        "two": [[text("Is "), IMAGE, text(" like "), IMAGE, text("?")]],
        "system": ["Be brief.", "Which?"],
        "talk": ["Hello?", "Hello.", "Which?"],  # the processor puts the picture before the first text
        "later": [[text("Hello?")], "Hello.", [IMAGE, text("Which?")]],
        "both": ["S", [text("See "), IMAGE, text(" here")], "Yes.", [IMAGE, text("Which?")]],
    }


def test_places_for_another_number_of_pictures_are_refused() -> None:
    with pytest.raises(RowError, match="sample plain has 1 images and places"):
        prompt_messages(replace(examples()[0], image_places=(1, 2)))


@pytest.mark.parametrize("make", [to_dataset, to_prompts_dataset])
def test_a_dataset_holds_prompts_as_they_are(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_ROWS_PER_WRITE", 2)  # the first batch has texts only
    assert [row["prompt"] for row in make(examples())] == [prompt_messages(example) for example in examples()]
    texts = make(examples()[:2])
    assert [row["prompt"] for row in texts] == [prompt_messages(example) for example in examples()[:2]]
    assert texts.features["prompt"] == rows.FEATURES["prompt"]


def test_right_alternatives_are_a_column_for_rewards() -> None:
    assert to_prompts_dataset(examples())["alternatives"][:2] == [[], ["pony"]]


def test_a_server_gets_pictures_at_their_places() -> None:
    kinds = {
        example.id: [
            [part["type"] for part in one["content"]] if isinstance(one["content"], list) else "text"
            for one in chat_messages(example)
        ]
        for example in examples()
    }
    assert kinds == {
        "plain": [["image_url", "text"]],
        "none": ["text"],
        "end": [["text", "image_url"]],
        "two": [["text", "image_url", "text", "image_url", "text"]],
        "system": ["text", ["image_url", "text"]],
        "talk": [["image_url", "text"], "text", "text"],
        "later": [["text"], "text", ["image_url", "text"]],
        "both": ["text", ["text", "image_url", "text"], "text", ["image_url", "text"]],
    }
    first, second = (
        part["image_url"]["url"]
        for part in chat_messages(examples()[3])[0]["content"]
        if len(part) == 2 and "image_url" in part
    )
    assert first != second


@pytest.mark.parametrize("format", [None, "think-answer", "boxed"])
def test_what_is_converted_keeps_places_turns_and_alternatives(tmp_path: Path, format: str | None) -> None:
    write_jsonl(examples(), tmp_path / "out.jsonl", format=format)
    for before, after in zip(examples(), load_data(str(tmp_path / "out.jsonl")).examples, strict=True):
        assert len(after.images) == len(before.images)
        assert replace(after, images=(), meta={}) == replace(before, images=(), meta={})
        assert prompt_messages(after) == prompt_messages(before)
