"""The pictures of an evaluation, before anything is generated: which are refused, and how large the others become."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from balanced_thinking.batch.picture_rules import check_picture_size
from balanced_thinking.data.bad_rows import BadRow, BadRowsError, RowError
from balanced_thinking.data.example import Example
from balanced_thinking.data.images import image_size, picture_name
from balanced_thinking.data.load import LoadedData

# Settings of image processors from which the size of what the model sees follows.
_BUDGET = (
    *("do_resize", "size", "min_pixels", "max_pixels", "do_center_crop", "crop_size", "patch_size", "merge_size"),
    *("do_image_splitting", "max_image_size", "image_grid_pinpoints", "crop_to_patches", "min_patches", "max_patches"),
    *("do_pan_and_scan", "pan_and_scan_min_crop_size", "pan_and_scan_max_num_crops", "max_num_patches"),
    "max_soft_tokens",
)


def drop_refused_pictures(loaded: LoadedData, processor: Any, data: str, on_bad_row: str) -> LoadedData:
    """The data without the examples of which a picture has a size that the processor refuses.

    Raises BadRowsError with all of them if `on_bad_row` is `error`.
    """
    bad_rows = tuple(_find_refused(loaded.examples, processor))
    if not bad_rows:
        return loaded
    if on_bad_row == "error":
        raise BadRowsError(data, bad_rows)
    refused = {bad.id for bad in bad_rows}
    kept = [example for example in loaded.examples if example.id not in refused]
    return LoadedData(kept, (*loaded.bad_rows, *bad_rows))


def _find_refused(examples: Sequence[Example], processor: Any) -> Iterator[BadRow]:
    for position, example in enumerate(examples, 1):
        try:
            for image in example.images:
                check_picture_size(processor, *image_size(image), name=picture_name(image))
        except RowError as error:
            yield BadRow(example.meta.get("row", position), (error.problem,), str(error), example.id)


def picture_budget(processor: Any) -> dict[str, Any]:
    """The image processor's settings about sizes; empty for a tokenizer."""
    images = getattr(processor, "image_processor", None)
    if images is None:
        return {}
    settings = json.loads(images.to_json_string())
    return {name: settings[name] for name in _BUDGET if settings.get(name) is not None}
