"""A file of good rows with faults of many kinds between them, and what each fault is called."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

GOOD_COLORS = ("red", "blue", "green")


def good_row(number: int) -> dict[str, Any]:
    color = GOOD_COLORS[number % len(GOOD_COLORS)]
    return {
        "id": f"good-{number}",
        "question": f"which color has tile {number} ?",
        "think": f"tile {number} looks {color} .",
        "answer": color,
        "image": f"tile-{number % 8}.png",
    }


def _spoken(text: str) -> dict[str, Any]:
    return {"prompt": "which color ?", "completion": text}


def _turns(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": "<think>x .</think><answer>red</answer>"} for role in roles]}


PLANTED = 60
# Name of the problem -> what makes a row of it.
FAULTS: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("invalid_json", lambda row: '{"question": "which color ?", '),
    ("invalid_json", lambda row: b'{"question": "which c\xe9l ?", "think": "x .", "answer": "red"}'),
    ("not_an_object", lambda row: ["which color ?", "red"]),
    ("unknown_schema", lambda row: {"text": "which color ?", "label": "red"}),
    ("no_question", lambda row: {**row, "question": " "}),
    ("no_question", lambda row: {**row, "question": float("nan")}),
    ("no_answer", lambda row: {**row, "answer": None}),
    ("no_answer", lambda row: {**row, "answer": float("nan")}),
    ("not_finite", lambda row: {**row, "answer": float("inf")}),
    ("no_think", lambda row: {**row, "think": None}),
    ("image_count", lambda row: {**row, "question": "is <image> like <image> ?"}),
    ("remote_image", lambda row: {**row, "image": "https://example.org/a.png"}),
    ("missing_image", lambda row: {**row, "image": "gone.png"}),
    ("broken_image", lambda row: {**row, "image": "torn.png"}),
    ("broken_image", lambda row: {**row, "image": "short.jpg"}),
    ("broken_image", lambda row: {**row, "image": "program.png"}),
    ("unread_image", lambda row: {"question": "which ?", "think": "x .", "answer": "red", "photo": "tile-0.png"}),
    ("duplicate_id", lambda row: {**row, "id": "good-0"}),
    ("answer_not_in_choices", lambda row: {**row, "choices": ["one", "two"]}),
    ("multiple_thinks", lambda row: _spoken("<think>x .</think><think>y .</think><answer>red</answer>")),
    ("unclosed_think", lambda row: _spoken("<think>x .<answer>red</answer>")),
    ("text_between", lambda row: _spoken("<think>x .</think> so <answer>red</answer>")),
    ("multiple_answers", lambda row: _spoken("<think>x .</think><answer>red</answer><answer>blue</answer>")),
    ("empty_answer", lambda row: _spoken("<think>x .</think><answer> </answer>")),
    ("text_before_think", lambda row: _spoken("well <think>x .</think><answer>red</answer>")),
    ("text_after_answer", lambda row: _spoken("<think>x .</think><answer>red</answer> yes")),
    ("special_token", lambda row: {**row, "question": "what does <|im_end|> do ?"}),
    ("special_token", lambda row: {**row, "think": "the token <|image_pad|> stands for a picture ."}),
    ("special_token", lambda row: {**row, "answer": "a <|vision_start|> red one"}),
    ("tag_in_text", lambda row: {**row, "answer": "red <|vision_start|>"}),
    ("tag_in_text", lambda row: {**row, "think": "the tag </think> ends it ."}),
    ("unread_media", lambda row: {**row, "image": None, "video": "clip.mp4"}),
    ("multi_turn", lambda row: _turns("user", "assistant", "assistant")),
    ("not_text", lambda row: {**row, "answer": True}),
    ("null_choice", lambda row: {**row, "choices": [None, "red"]}),
    ("two_systems", lambda row: {**_turns("system", "user", "assistant"), "system": "be brief ."}),
    ("nested_tag", lambda row: _spoken("<think>x <think>y .</think><answer>red</answer>")),
    ("unclosed_answer", lambda row: _spoken("<think>x .</think><answer>red")),
    ("missing_open_think", lambda row: _spoken("x .</think><answer>red</answer>")),
    ("empty_think", lambda row: _spoken("<think> </think><answer>red</answer>")),
    ("lone_surrogate", lambda row: {**row, "think": "it looks \ud800 red ."}),
    ("picture_refused", lambda row: {**row, "image": "thin.png"}),
    ("too_long", lambda row: {**row, "think": "it is red . " * 400}),
]


def write_planted(folder: Path, rows: int) -> dict[int, str]:
    """Write `train.jsonl` with this many rows, 60 of them faults; return line -> name of its problem."""
    draw = random.Random(0)
    for k in range(8):
        Image.new("RGB", (56, 56), (30 * k, 90, 200)).save(folder / f"tile-{k}.png")
    Image.new("RGB", (900, 3), "red").save(folder / "thin.png")
    (folder / "torn.png").write_bytes((folder / "tile-0.png").read_bytes()[:60])
    Image.effect_noise((96, 96), 60).save(folder / "noise.jpg", quality=90)
    (folder / "short.jpg").write_bytes((folder / "noise.jpg").read_bytes()[:2000])
    (folder / "program.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    lines: list[bytes] = [json.dumps(good_row(number)).encode() for number in range(rows - PLANTED)]
    planted: list[tuple[str, bytes]] = []
    for number, (name, make) in enumerate([*FAULTS, *FAULTS[: PLANTED - len(FAULTS)]]):
        made = make({**good_row(number), "id": f"bad-{number}"})
        made = made if isinstance(made, bytes) else (made if isinstance(made, str) else json.dumps(made)).encode()
        planted.append((name, made))
    places = sorted(draw.sample(range(1, rows), len(planted)))
    for place, (_, line) in zip(places, planted, strict=True):
        lines.insert(place, line)
    (folder / "train.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return {place + 1: name for place, (name, _) in zip(places, planted, strict=True)}
