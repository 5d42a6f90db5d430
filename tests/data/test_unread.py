"""Pictures, video and sound that a row has and nothing reads; pictures inside a row."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from balanced_thinking.data.bad_rows import BadRow
from balanced_thinking.data.example import Example
from balanced_thinking.data.images import open_image
from balanced_thinking.data.unread import find_unread_pictures
from tests.data.row_files import asks, make_pictures, read_one, says


def encoded(format: str = "PNG", color: str = "red") -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), color).save(buffer, format)
    return base64.b64encode(buffer.getvalue()).decode()


ROW = {"question": "Which animal?", "think": "It has a mane.", "answer": "horse"}
URI = f"data:image/png;base64,{encoded()}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_pictures(tmp_path)
    return tmp_path


UNREAD = [
    ({"videos": ["a.mp4"]}, "unread_media"),
    ({"video": "clips/a"}, "unread_media"),
    ({"audio": {"path": "a.wav", "array": [0.1]}}, "unread_media"),
    ({"clip": "a.mp4"}, "unread_media"),  # by its suffix
    ({"meta": {"sound": "a.mp3"}}, "unread_media"),
    ({"question": "<video>\nWhat happens?"}, "unread_media"),
    ({"question": "What happens in <audio>?"}, "unread_media"),
    ({"question": "<video>What happens?"}, "unread_media"),
    ({"question": "What happens? (<Video>)"}, "unread_media"),
    ({"question": "It is\n<video>\nWhat happens?"}, "unread_media"),
    ({"question": "In <|video_pad|> what happens?"}, "unread_media"),  # a model's own token, anywhere
    ({"image": "one.png", "videos": ["a.mp4"]}, "unread_media"),  # beside a picture, too
    ({"thumbnail": "one.png"}, "unread_image"),  # by its suffix
    ({"meta": {"source": "photos/one.JPG?raw=1"}}, "unread_image"),
    ({"scan": encoded()}, "unread_image"),  # base64 under any name
    ({"scan": encoded("JPEG")}, "unread_image"),
    ({"meta": {"scan": [encoded("WEBP")]}}, "unread_image"),
    ({"scan": URI}, "unread_image"),
    ({"image_file": "one"}, "unread_image"),  # a path without a suffix, by its name
    ({"img_id": "000042"}, "unread_image"),
    ({"imageId": 42}, "unread_image"),
    ({"picture-path": "photos/one"}, "unread_image"),
    ({"image_url": "https://example.org/42"}, "unread_image"),
    ({"image": "https://example.org/42.png"}, "remote_image"),
    ({"image": "iVBORw0KGgo" + "A" * 80}, "broken_image"),  # base64 of no picture
    ({"image": "data:image/png;base64,!!!"}, "broken_image"),
    ({"images": ["one.png", None]}, "broken_image"),
    ({"question": "Picture 1: <img>one.png</img>\nWhich?"}, "unread_image"),  # Qwen-VL's and ms-swift's form
    ({"question": "<img>one.png</img><img>two.png</img>Which?", "image": "one.png"}, "unread_image"),
    ({"question": "Is <image>one.png</image> red?", "image": "one.png"}, "unread_image"),
    ({"question": "![the first](one.png) Which?"}, "unread_image"),
    ({"question": f"![the first]({URI}) Which?"}, "unread_image"),
    ({"question": '<img src="one.png"> Which?'}, "unread_image"),
    ({"question": "What does <img src='my one.png'/> show?"}, "unread_image"),
    ({"question": "<IMG width=3 SRC=one.png alt='one cat'>Which?"}, "unread_image"),
    ({"question": '<img alt="a" src="https://cdn.org/a.jpg?h=4" />Which?'}, "unread_image"),
    ({"question": "<img src='https://cdn.org/42'>Which?"}, "unread_image"),  # a web address without a suffix
    ({"question": f"<img src={URI}>Which?"}, "unread_image"),
    ({"question": "![](https://cdn.org/a-1.jpg?height=421&width=420) Which?"}, "unread_image"),
    ({"image": "one.png", "image_2": "two.png"}, "unread_image"),  # a second picture in a column of its own
    ({"image": "one.png", "images": ["two.png"]}, "unread_image"),
    ({"image": "one.png", "images": [{"path": "two.png"}]}, "unread_image"),
    ({"image": "a/one.png", "images": ["b/one.png"]}, "unread_image"),
    ({"think": "<ref-object> is left.", "objects": {"ref": ["cat"], "bbox": [[1, 2, 3, 4]]}}, "unfilled_place"),
    ({"kto_tag": False}, "not_for_training"),
]


@pytest.mark.parametrize(("values", "problem"), UNREAD)
def test_what_is_not_read_is_never_a_sample_without_it(folder: Path, values: dict[str, Any], problem: str) -> None:
    found = read_one(folder, ROW | values)
    assert isinstance(found, BadRow), found
    assert found.problems == (problem,)


@pytest.mark.parametrize("kind", ["video", "audio", "input_audio", "video_url"])
def test_parts_of_other_media_are_named(folder: Path, kind: str) -> None:
    found = read_one(folder, {"messages": [asks([{"type": kind, kind: "x"}, {"type": "text", "text": "Q"}]), says()]})
    assert found.problems == ("unread_media",)


# (what the user's turn has beside its content, the problem)
UNREAD_OF_TURN = [
    ({"video": "a.mp4"}, "unread_media"),
    ({"videos": ["clips/a"]}, "unread_media"),
    ({"video_path": "clips/a"}, "unread_media"),
    ({"video": {"path": "a", "fps": 1}}, "unread_media"),
    ({"audio": True}, "unread_media"),
    ({"clip": "a.webm"}, "unread_media"),  # by its suffix
    ({"attachments": [{"contentType": "audio/wav", "url": "https://example.org/42"}]}, "unread_media"),
    ({"image_path": "one.png"}, "unread_image"),
    ({"image_url": {"url": "https://example.org/42", "detail": "auto"}}, "unread_image"),
    ({"imageUrl": "photos/one"}, "unread_image"),
    ({"img": {"bytes": None, "path": "one"}}, "unread_image"),
    ({"path": "one.png"}, "unread_image"),
    ({"scan": encoded()}, "unread_image"),
    ({"media": "one.png"}, "unread_image"),
    ({"attachments": [{"path": "one.png"}]}, "unread_image"),
    ({"attachments": [{"mimeType": "image/png", "id": "file-1"}]}, "unread_image"),
    ({"attachments": ["file-1"]}, "unread_image"),  # of a kind that nothing says
    ({"experimental_attachments": [{"url": URI}]}, "unread_image"),
    ({"extra": {"type": "image_url", "image_url": {"url": "one"}}}, "unread_image"),
]


@pytest.mark.parametrize(("beside", "problem"), UNREAD_OF_TURN)
def test_what_is_not_read_in_a_turn_is_never_lost(folder: Path, beside: dict[str, Any], problem: str) -> None:
    part = {"type": "text", "text": "Which?", **beside}
    for turns in (
        [asks("Which?", **beside), says()],
        [asks([part]), says()],
        [asks("Hello.", **beside), says(), asks("Which?"), says()],  # an earlier turn
        [{"role": "system", "content": "Be brief.", **beside}, asks("Which?"), says()],
    ):
        found = read_one(folder, {"messages": turns})
        assert isinstance(found, BadRow), found
        assert found.problems == (problem,)
        assert "turn." in found.text
    other = read_one(folder, {"messages": [asks("Which?", **beside), says()], "image": "two.png"})
    by_name = beside in ({"attachments": ["file-1"]}, {"imageUrl": "photos/one"}, {"scan": encoded()})
    assert isinstance(other, Example) is by_name  # beside a picture only what is surely another one is refused


def test_an_object_as_content_does_not_lose_its_picture(folder: Path) -> None:
    for content in ({"text": "Which?", "image": "one.png"}, {"text": "Which?", "images": ["one.png"]}):
        assert read_one(folder, {"messages": [asks(content), says()]}).problems == ("unread_image",)


# (Anthropic's `source` of a part, what it is in a row without pictures, in one with `one.png`)
SOURCES = [
    ({"type": "base64", "media_type": "image/png", "data": encoded()}, 1, 1),
    ({"type": "url", "url": "file://one.png"}, 1, 1),
    ({"type": "url", "url": "file://two.png"}, 1, "unread_image"),
    ({"type": "file", "file_id": "file-7"}, "image_count", 1),  # a place for a picture of the row
    ({"type": "base64", "data": "cat!"}, "broken_image", "broken_image"),
    ({"type": "base64", "data": ""}, "image_count", 1),
]


@pytest.mark.parametrize(("source", "alone", "beside"), SOURCES)
def test_a_picture_under_the_source_of_a_part_is_read(folder: Path, source: Any, alone: Any, beside: Any) -> None:
    row = {"messages": [asks([{"type": "image", "source": source}, "Which?"]), says()]}
    for found, expected in ((read_one(folder, row), alone), (read_one(folder, row | {"images": ["one.png"]}), beside)):
        if isinstance(expected, str):
            assert found.problems == (expected,)
        else:
            assert isinstance(found, Example), found
            assert (len(found.images), find_unread_pictures(found)) == (expected, [])


HARMLESS_IN_TURN = [
    {"image_path": None, "video": None, "attachments": [], "audio": False},  # nulls, as tables fill turns up
    {"image_url": {"url": None}, "img": {"bytes": None, "path": ""}, "attachments": [{"path": None}]},
    {"has_attachments": False, "num_attachments": 0, "attachments": "none", "social_media": "Twitter"},
    {"cache_control": {"type": "ephemeral"}, "citations": None, "id": 7, "image_width": 640, "has_image": False},
]


@pytest.mark.parametrize("beside", HARMLESS_IN_TURN)
def test_other_values_of_a_turn_are_no_pictures(folder: Path, beside: dict[str, Any]) -> None:
    for content in ("Which?", [{"type": "text", "text": "Which?", **beside}]):
        assert isinstance(read_one(folder, {"messages": [asks(content, **beside), says()]}), Example)
    same = asks("Which?", image_path="./one.png", image_id=7, mask="two.png")
    example = read_one(folder, {"messages": [same, says()], "images": ["one.png"]})
    assert isinstance(example, Example), example
    assert find_unread_pictures(example) == ["turn.mask"]


HARMLESS = [
    {"image_width": 640, "image_count": 0},  # about a picture, not one
    {"has_image": False, "image_type": "photo"},
    {"image_caption": "a horse on a hill"},
    {"picture": "none", "figure": None, "photo": ""},
    {"site": "https://example.org/page", "hash": "9f" * 40},
    {"image": "one.png", "mask": "two.png", "image_id": 7},  # the row has its picture
    {"videos": [], "video": None, "audio": ""},
    {"images": [None], "video": False},
    {"note": "see one.png and two"},
    {"image": "one.png", "images": ["one.png", "two.png"]},  # the first of them again
    {"image": "one.png", "image_1": "one.png"},
    {"image": "./one.png", "images": ["one.png"]},
    {"image": "one.png", "images": [{"path": "one.png"}]},
    {"image": "elsewhere/1.png", "images": [{"bytes": encoded(), "path": None}]},  # a path beside the picture itself
    *({"image": "one.png", "image_1": value} for value in (17, "A cat on a mat", "None", False)),  # about a picture
    {"image": "one.png", "image_2": {"bytes": None, "path": None}},  # an empty cell of a table
    {"question": 'Why is <img id="1"> invalid?'},
    {"question": 'Why does <img id="1"> fail?', "image": "one.png"},
    {"question": "<img>cat</img> is what?", "image": "one.png"},
    {"question": "What does ```![logo](docs/logo.png)``` do?"},
    {"question": "What does `![logo](docs/logo.png)` do?"},
    {"question": "Answer in <bbox> tags.", "objects": ["cat"]},
    {"question": "Answer in <bbox> tags.", "objects": {"ref": [], "bbox": []}},
    {"answers": ["3", "4"], "answer": "3"},
    {"answer": [3, 3.0]},
    {"image": "one.png", "question": "What does ![a](b.png) mean in this picture?"},
    {"question": "What does `<img src='logo.png'>` show?"},  # code
    {"question": "What does <img src='logo.png'> do?", "image": "one.png"},
    {"question": "What does <img src='x' data-src=a> or <img src=> do?"},  # no picture's file
    {"objects": {"ref": ["cat"], "bbox": [[1, 2, 3, 4]]}},  # beside texts that have no place for them
    {"label": False, "kto_tag": True},
    {"question": "What does the <video> tag do?"},  # about HTML
    {"question": "Is `<audio>` older than `<video>`?"},
    {"question": "Repair this:\n<video>\n<source src='a'>\n</video>"},
]


@pytest.mark.parametrize("values", HARMLESS)
def test_other_values_are_no_pictures(folder: Path, values: dict[str, Any]) -> None:
    assert isinstance(read_one(folder, ROW | values), Example)


HELD = [
    {"image": encoded()},
    {"image": URI},
    {"images": [encoded()]},
    {"image": {"bytes": encoded()}},
    {"image": {"url": URI}},
    {"image": {"path": "one.png"}},
    {"image": {"url": "one.png"}},
    {"images": [None], "image": "one.png"},
    {"images": [None], "image_1": "one.png"},
    {"images": "['one.png']"},  # as pandas writes a list
    {"images": '["one.png"]'},
    {"image_1": "one.png", "image_2": None},  # a column for each
    {"image": "file://one.png"},
]


@pytest.mark.parametrize("values", HELD)
def test_a_picture_may_be_in_the_row(folder: Path, values: dict[str, Any]) -> None:
    example = read_one(folder, ROW | values)
    assert isinstance(example, Example), example
    (image,) = example.images
    assert open_image(image).getpixel((0, 0)) == (255, 0, 0)


def test_numbered_pictures_keep_their_order(folder: Path) -> None:
    example = read_one(
        folder, ROW | {"image_2": "two.png", "image_1": "one.png", "question": "<image 2> or <image 1>?"}
    )
    assert [image.name for image in example.images] == ["two.png", "one.png"]
    assert example.question == "or ?"
