"""Examples -> the rows that trainers take: `id`, `prompt`, `images`, and a `completion` or the right `answer`."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, Features, List, Value
from PIL import Image

from balanced_thinking.data.example import Example
from balanced_thinking.segments import ReasoningFormat, render
from balanced_thinking.system.ending import run_at_end

_MESSAGES = List({"role": Value("string"), "content": Value("string")})
# Stored like the undecoded `Image` feature of `datasets`: a picture is opened once, when its batch is built.
_IMAGES = List({"bytes": Value("binary"), "path": Value("string")})
_ROWS_PER_WRITE = 1000
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
    """A dataset for `ScaleSFTTrainer`, with completions written in this reasoning format.

    Rows are written to a temporary file one batch at a time and read from it, so that any number of them fits in
    memory. The file is deleted when the process ends. If no row has a picture, there is no column `images`, because
    text-only models do not accept it.
    """
    return _write_dataset(
        (
            {
                "id": example.id,
                "prompt": prompt_messages(example),
                "completion": [{"role": "assistant", "content": render(example.think, example.answer, format)}],
                "images": [image_cell(image) for image in example.images],
            }
            for example in examples
        ),
        FEATURES,
    )


def to_prompts_dataset(examples: Iterable[Example]) -> Dataset:
    """A dataset for `ScaleGRPOTrainer`: prompts, pictures, and the right answer for the reward."""
    return _write_dataset(
        (
            {
                "id": example.id,
                "prompt": prompt_messages(example),
                "images": [image_cell(image) for image in example.images],
                "answer": example.answer,
                "choices": list(example.choices),
            }
            for example in examples
        ),
        PROMPT_FEATURES,
    )


def _write_dataset(rows: Iterator[dict[str, Any]], features: Features) -> Dataset:
    folder = Path(tempfile.mkdtemp(prefix="balanced-thinking-"))
    run_at_end(partial(shutil.rmtree, folder, ignore_errors=True))
    file, schema, has_pictures = folder / "rows.arrow", features.arrow_schema, False
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        while batch := list(islice(rows, _ROWS_PER_WRITE)):
            has_pictures = has_pictures or any(row["images"] for row in batch)
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
    dataset = Dataset.from_file(str(file))
    return dataset if has_pictures else dataset.remove_columns("images")


def prompt_messages(example: Example) -> list[dict[str, str]]:
    """The messages before the model's turn. The processor puts the pictures before the text."""
    return [{"role": "user", "content": example.question}]


def image_cell(image: Path | Image.Image) -> dict[str, Any]:
    """A path, or a picture's bytes: those of its file if they are known, else PNG."""
    if isinstance(image, Path):
        return {"bytes": None, "path": str(image)}
    if (encoded := getattr(image, "encoded", None)) is not None:
        return {"bytes": encoded, "path": None}
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return {"bytes": buffer.getvalue(), "path": None}
