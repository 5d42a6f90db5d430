"""Examples -> the rows that trainers take: `id`, `prompt`, `completion` (messages) and `images`."""

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
    dataset = Dataset.from_list(rows, features=FEATURES)
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
