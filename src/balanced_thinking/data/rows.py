"""Examples -> the rows that trainers take: `id`, `prompt`, `images`, and a `completion` or the `answer` to find."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value
from PIL import Image

from balanced_thinking.data.example import Example
from balanced_thinking.segments import ReasoningFormat, render

_MESSAGES = List({"role": Value("string"), "content": Value("string")})
# The storage of datasets' own `Image` feature, undecoded: a picture is opened once, when its batch is built.
_IMAGES = List({"bytes": Value("binary"), "path": Value("string")})
FEATURES = Features({"id": Value("string"), "prompt": _MESSAGES, "completion": _MESSAGES, "images": _IMAGES})
PROMPT_FEATURES = Features(
    {
        "id": Value("string"),
        "prompt": _MESSAGES,
        "images": _IMAGES,
        "answer": Value("string"),
        "choices": List(Value("string")),
    }
)


def to_dataset(examples: Iterable[Example], format: str | ReasoningFormat = "think-answer") -> Dataset:
    """The examples as a dataset for `ScaleSFTTrainer`, their completions written in the reasoning format.

    Without a single picture there is no column `images` either, so that text-only models take it.
    """
    rows = [
        {
            "id": example.id,
            "prompt": prompt(example),
            "completion": [{"role": "assistant", "content": render(example.think, example.answer, format)}],
            "images": [stored(image) for image in example.images],
        }
        for example in examples
    ]
    return _dataset(rows, FEATURES)


def to_prompts_dataset(examples: Iterable[Example]) -> Dataset:
    """The examples as a dataset for `ScaleGRPOTrainer`: prompts and pictures, with the answer that earns the reward."""
    rows = [
        {
            "id": example.id,
            "prompt": prompt(example),
            "images": [stored(image) for image in example.images],
            "answer": example.answer,
            "choices": list(example.choices),
        }
        for example in examples
    ]
    return _dataset(rows, PROMPT_FEATURES)


def _dataset(rows: list[dict[str, Any]], features: Features) -> Dataset:
    dataset = Dataset.from_list(rows, features=features)
    return dataset if any(row["images"] for row in rows) else dataset.remove_columns("images")


def prompt(example: Example) -> list[dict[str, str]]:
    """The messages before the model's turn; the processor puts the pictures before the text."""
    return [{"role": "user", "content": example.question}]


def stored(image: Path | Image.Image) -> dict[str, Any]:
    """A path as it is, a picture as PNG bytes."""
    if isinstance(image, Path):
        return {"bytes": None, "path": str(image)}
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return {"bytes": buffer.getvalue(), "path": None}
