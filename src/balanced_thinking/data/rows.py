"""Examples -> the rows that trainers take: `id`, `prompt`, `images`, and a `completion` or the right `answer`."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, Features, Json, List, Value
from PIL import Image

from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.data.example import Example, Turn
from balanced_thinking.data.images import open_image
from balanced_thinking.segments import ReasoningFormat, render
from balanced_thinking.system.ending import run_at_end

_MESSAGES = List({"role": Value("string"), "content": Value("string")})
# Content that is a text or a list of parts, without the nulls that Arrow would fill the parts up with.
_MESSAGES_OF_PARTS = List({"role": Value("string"), "content": Json()})
# Stored like the undecoded `Image` feature of `datasets`: a picture is opened once, when its batch is built.
_IMAGES = List({"bytes": Value("binary"), "path": Value("string")})
_ROWS_PER_WRITE = 1000
FEATURES = Features({"id": Value("string"), "prompt": _MESSAGES, "completion": _MESSAGES, "images": _IMAGES})
ANSWER_FEATURES = Features(
    {"answer": Value("string"), "choices": List(Value("string")), "alternatives": List(Value("string"))}
)
PROMPT_FEATURES = Features({"id": Value("string"), "prompt": _MESSAGES, "images": _IMAGES, **ANSWER_FEATURES})


def to_dataset(examples: Iterable[Example], format: str | ReasoningFormat = "think-answer") -> Dataset:
    """A dataset for `ScaleSFTTrainer`, with completions written in this reasoning format.

    Rows are written to a temporary file one batch at a time and read from it, so that any number of them fits in
    memory. The file is deleted when the process ends. If no row has a picture, there is no column `images`, because
    text-only models do not accept it. Contents of prompts are texts, or parts where a picture has a place in a text.
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
                "alternatives": list(example.alternatives),
            }
            for example in examples
        ),
        PROMPT_FEATURES,
    )


def _write_dataset(rows: Iterator[dict[str, Any]], features: Features) -> Dataset:
    folder = Path(tempfile.mkdtemp(prefix="balanced-thinking-"))
    run_at_end(partial(shutil.rmtree, folder, ignore_errors=True))
    has_pictures = False

    def watched_rows() -> Iterator[dict[str, Any]]:
        nonlocal has_pictures
        for row in rows:
            has_pictures = has_pictures or bool(row["images"])
            yield row

    batches, file = _iterate_batches(watched_rows()), folder / "rows.arrow"
    first_with_parts = _write_texts(file, batches, features)
    if first_with_parts:
        texts, file = file, folder / "rows-with-parts.arrow"
        _write_parts(file, chain(_read_batches(texts), [first_with_parts], batches), features)
    dataset = Dataset.from_file(str(file))
    return dataset if has_pictures else dataset.remove_columns("images")


def _iterate_batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while batch := list(islice(rows, _ROWS_PER_WRITE)):
        yield batch


def _write_texts(
    file: Path, batches: Iterator[list[dict[str, Any]]], features: Features
) -> list[dict[str, Any]] | None:
    """Write rows whose contents are texts. Stops at a batch with parts and returns it."""
    schema = features.arrow_schema
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            if any(not isinstance(message["content"], str) for row in batch for message in row["prompt"]):
                return batch
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
    return None


def _write_parts(file: Path, batches: Iterable[list[dict[str, Any]]], features: Features) -> None:
    """Write rows whose contents are texts or lists of parts."""
    schema = Features({**features, "prompt": _MESSAGES_OF_PARTS}).arrow_schema
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            encoded = [
                {**row, "prompt": [{**one, "content": json.dumps(one["content"])} for one in row["prompt"]]}
                for row in batch
            ]
            table = pa.Table.from_pylist(encoded, schema=features.arrow_schema)
            columns = [_mark_as_json(table[name]) if name == "prompt" else table[name] for name in schema.names]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _mark_as_json(messages: pa.ChunkedArray) -> pa.Array:
    """Messages whose contents are texts of JSON, with that type. Arrow cannot make such a column from Python values."""
    column = messages.combine_chunks()
    contents = pa.ExtensionArray.from_storage(pa.json_(pa.string()), column.values.field("content"))
    spoken = pa.StructArray.from_arrays([column.values.field("role"), contents], names=["role", "content"])
    return pa.ListArray.from_arrays(column.offsets, spoken)


def _read_batches(file: Path) -> Iterator[list[dict[str, Any]]]:
    with pa.memory_map(str(file)) as source:
        for batch in pa.ipc.open_stream(source):
            yield batch.to_pylist()


def prompt_messages(example: Example) -> list[dict[str, Any]]:
    """The messages before the model's turn: the system text, the earlier turns, the question.

    A content is text where all pictures are at the start of the first question, because the processor puts them there.
    Otherwise the user's contents are lists of parts: `{"type": "image"}` and `{"type": "text", "text": ...}`. Raises
    RowError for places that do not fit the number of pictures.
    """
    turns = turns_with_places(example)
    moved = pictures_are_moved(turns)
    messages: list[dict[str, Any]] = [{"role": "system", "content": example.system}] if example.system else []
    for turn in turns:
        content = _split_into_parts(turn) if moved and turn.role == "user" else turn.text
        messages.append({"role": turn.role, "content": content})
    return messages


def turns_with_places(example: Example) -> list[Turn]:
    """The earlier turns and the question, each with the places of its pictures."""
    own = len(example.images) - sum(len(turn.image_places) for turn in example.history)
    places = example.image_places or (0,) * own
    if len(places) != own:
        raise RowError(
            f"sample {example.id} has {len(example.images)} images and places for {len(example.images) - own} of them "
            f"in earlier turns and for {len(places)} in the question; expected a place for each",
            "image_count",
        )
    return [*example.history, Turn("user", example.question, places)]


def pictures_are_moved(turns: Sequence[Turn]) -> bool:
    """Whether a picture is elsewhere than at the start of the first turn, which is the user's."""
    first, *later = turns
    return any(first.image_places) or any(turn.image_places for turn in later)


def _split_into_parts(turn: Turn) -> list[dict[str, str]]:
    parts, start = [], 0
    for place in (*turn.image_places, None):
        if text := turn.text[start:place]:
            parts.append({"type": "text", "text": text})
        parts += [] if place is None else [{"type": "image"}]
        start = place or start
    return parts


def image_cell(image: Path | Image.Image) -> dict[str, Any]:
    """A path, or a picture's bytes: those of its file if they are known, else a PNG as `open_image` gives it."""
    if isinstance(image, Path):
        return {"bytes": None, "path": str(image)}
    if (encoded := getattr(image, "encoded", None)) is not None:
        return {"bytes": encoded, "path": None}
    buffer = io.BytesIO()
    open_image(image).save(buffer, format="PNG", compress_level=1)  # its EXIF data would be lost
    return {"bytes": buffer.getvalue(), "path": None}
