"""Rows as trainers take them, through the check before step 1, with the processor of a tiny vision-language model.

An input is a byte for the reasoning format and what is checked, then one row as JSON.
"""

from __future__ import annotations

import json
import random
from functools import cache
from typing import Any

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.batch.row_check import RowChecker
from balanced_thinking.data.bad_rows import PROBLEMS
from balanced_thinking.models.tiny import build_tiny
from tests.faults.fuzz.rows_target import workplace
from tests.faults.fuzz.target import Target
from tests.faults.fuzz.values import FRAGMENTS, mutate_bytes, nasty_text, write_json

_FORMATS = ("think-answer", "deepseek-r1", "boxed", "direct")
_COMPLETION = "<think>Two are red.</think><answer>B</answer>"
_SPECIAL = (
    "<|im_start|>",
    "<|im_end|>",
    "<|image_pad|>",
    "<|vision_start|>",
    "<|endoftext|>",
    "{{ x }}",
    "assistant\n",
)


@cache
def _checkers() -> tuple[RowChecker, ...]:
    processor = build_tiny("qwen2_5_vl")[1]
    return tuple(
        RowChecker(ScaleCollator(processor, format, 256), completions=completions, count_all=True)
        for format in _FORMATS
        for completions in (True, False)
    )


def generate(rng: random.Random) -> bytes:
    text = rng.choice(("What?", nasty_text(rng), rng.choice(_SPECIAL) + nasty_text(rng, 2)))
    completion = rng.choice((_COMPLETION, nasty_text(rng), _COMPLETION + rng.choice(_SPECIAL)))
    row: dict[str, Any] = {
        "id": "x",
        "prompt": [{"role": rng.choice(("user", "system")), "content": text}],
        "completion": [{"role": "assistant", "content": completion}],
        "images": rng.choice(([], ["dot.jpg"], ["dot.png"], ["broken.png"], ["missing.png"], ["dot.jpg"] * 3)),
    }
    if rng.random() < 0.2:
        row["prompt"] = [
            {"role": "user", "content": text},
            {"role": "assistant", "content": completion},
            *row["prompt"],
        ]
    if rng.random() < 0.1:
        row["prompt"][0]["content"] = [{"type": "image"}, {"type": "text", "text": text}]
    return bytes([rng.randrange(256)]) + write_json(rng, row)


def run(data: bytes) -> None:
    try:
        row = json.loads(data[1:])
        messages = [*row["prompt"], *row["completion"]]
        json.dumps(row, ensure_ascii=False).encode()  # a dataset holds no lone surrogate: the readers name it
        known = all(isinstance(one["content"], str | list) and isinstance(one["role"], str) for one in messages)
    except (ValueError, TypeError, KeyError, RecursionError):
        return
    if not known or not isinstance(row.get("images"), list):
        return  # what readers never give
    row["images"] = [{"path": str(workplace() / str(name)), "bytes": None} for name in row["images"]]
    checker = _checkers()[(data[:1] or b"\0")[0] % len(_checkers())]
    found = checker.check_row(row)
    assert {one.name for one in found.problems} <= set(PROBLEMS), found.problems
    assert found.tokens >= 0


def mutate(rng: random.Random, data: bytes) -> bytes:
    return data[:1] + mutate_bytes(rng, data[1:], (*FRAGMENTS, *_SPECIAL))


TARGET = Target("row_check", generate, run, mutate, prepare=_checkers)
