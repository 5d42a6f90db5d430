"""The pictures and prompts of a generation cycle, as TRL's GRPOTrainer needs them for every kind of processor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from datasets import Dataset, Image, List

from balanced_thinking.batch.messages import row_images
from balanced_thinking.batch.pictures import DistinctImageProcessor
from balanced_thinking.data.images import open_image
from balanced_thinking.models.processor_parts import takes_pictures

IMAGE_COUNTS = "batch_num_images"  # of each row: LLaVA-OneVision cuts only the image of a row with one
_IMAGE_INPUTS = ("pixel_values", "image_grid_thw", "image_sizes", IMAGE_COUNTS)


def keep_images_encoded(dataset: Any) -> Any:
    """The dataset with images as stored bytes or paths, so that a row repeated for a group is not decoded again."""
    if not isinstance(dataset, Dataset):
        return dataset
    for name, feature in dataset.features.items():
        if isinstance(feature, Image):
            dataset = dataset.cast_column(name, Image(decode=False))
        elif isinstance(feature, List) and isinstance(feature.feature, Image):
            dataset = dataset.cast_column(name, List(Image(decode=False)))
    return dataset


def open_images(row: Mapping[str, Any], opened: dict[Any, Any]) -> dict[str, Any]:
    """The row with its images opened; equal references give the same object."""
    plain = {name: value for name, value in row.items() if name not in ("image", "images")}
    if not {"image", "images"} & row.keys():
        return plain
    return plain | {"images": [_open_once(reference, opened) for reference in row_images(row)]}


def _open_once(reference: Any, opened: dict[Any, Any]) -> Any:
    key = (reference.get("path"), reference.get("bytes")) if isinstance(reference, Mapping) else reference
    key = id(key) if hasattr(key, "getbbox") else key  # an open image
    if key not in opened:
        opened[key] = open_image(reference)
    return opened[key]


@contextmanager
def process_each_image_once(processor: Any) -> Iterator[None]:
    """Within a generation cycle, let the processor process each image object once."""
    if not takes_pictures(processor):
        yield
        return
    original = processor.image_processor
    processor.image_processor = DistinctImageProcessor(original)
    try:
        yield
    finally:
        processor.image_processor = original


@contextmanager
def exact_text(tokenizer: Any) -> Iterator[None]:
    """Let the tokenizer pad on the left and add no special token.

    TRL pads prompts so, but takes the token types of pictures from the tokenizer's own way: with a second `<bos>`
    (Gemma 3 and 4) each type would belong to the token before.
    """
    before, tokenizer.padding_side = tokenizer.padding_side, "left"
    backend = getattr(tokenizer, "backend_tokenizer", None)
    adds = getattr(backend, "post_processor", None)
    if backend is not None:
        backend.post_processor = None
    try:
        yield
    finally:
        tokenizer.padding_side = before
        if backend is not None:
            backend.post_processor = adds


def without_empty_images(inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs without image tensors of length 0, which models refuse: a slice of a batch may have no images."""
    pixels = inputs.get("pixel_values")
    if pixels is None or len(pixels):
        return inputs
    return {name: value for name, value in inputs.items() if name not in _IMAGE_INPUTS}


def count_entries_by_row(fields: dict[str, Any]) -> None:
    """Set `num_images` to one per row where a processor stores the pictures of a row as one entry (SmolVLM, Idefics3).

    Otherwise TRL would split the rows by their pictures wherever there are as many pictures as rows.
    """
    by_row = fields.get("pixel_attention_mask") is not None and fields.get("spatial_shapes") is None
    if by_row and fields.get("num_images") is not None:
        fields["num_images"] = [1] * len(fields["num_images"])
