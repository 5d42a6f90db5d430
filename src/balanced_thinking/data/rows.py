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
# The storage of datasets' own `Image` feature, undecoded: a picture is opened once, when its batch is built.
_IMAGES = List({"bytes": Value("binary"), "path": Value("string")})
_ROWS_WRITTEN = 1000  # at a time
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

    Rows go to a temporary file as they come and are read from there, so that any number of them fits in memory; the
    file goes when the process ends. Without a single picture there is no column `images`, so that text-only models take
    it.
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
    """The examples as a dataset for `ScaleGRPOTrainer`: prompts and pictures, with the answer that earns the reward."""
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
    file, schema, pictured = folder / "rows.arrow", features.arrow_schema, False
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        while batch := list(islice(rows, _ROWS_WRITTEN)):
            pictured = pictured or any(row["images"] for row in batch)
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
    dataset = Dataset.from_file(str(file))
    return dataset if pictured else dataset.remove_columns("images")


def prompt_messages(example: Example) -> list[dict[str, str]]:
    """The messages before the model's turn; the processor puts the pictures before the text."""
    return [{"role": "user", "content": example.question}]


def image_cell(image: Path | Image.Image) -> dict[str, Any]:
    """A path as it is, a picture as it was published, or as PNG bytes."""
    if isinstance(image, Path):
        return {"bytes": None, "path": str(image)}
    if (encoded := getattr(image, "encoded", None)) is not None:
        return {"bytes": encoded, "path": None}
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return {"bytes": buffer.getvalue(), "path": None}
