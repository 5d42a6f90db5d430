"""The rows of a recipe's splits, as the trainers take them."""

from __future__ import annotations

import logging
from itertools import chain
from typing import Any, NamedTuple

from balanced_thinking.data.load import choose_read_format, stream_data
from balanced_thinking.data.mixture import describe_data, mix_rows, validation_data
from balanced_thinking.data.overlap import refuse_overlap
from balanced_thinking.data.rows import to_dataset, to_prompts_dataset
from balanced_thinking.training.recipe import Recipe

logger = logging.getLogger(__name__)


class LoadedSplit(NamedTuple):
    """The rows of a split, and how many bad ones were left out."""

    rows: Any
    dropped: int


def load_split(
    recipe: Recipe, args: Any, name: str, split: str, options: dict[str, Any], owner: dict[int, str]
) -> LoadedSplit:
    """Read a split. `owner` holds the examples of earlier splits, which must not occur again.

    Several data sets are mixed by their weights for training, and read once each for validation.
    """
    source = recipe.data if name == "training" else validation_data(recipe.data)
    examples = stream_data(
        source,
        split=split,
        format=choose_read_format(recipe.training.get("reasoning_format")),
        limit=recipe.limit,
        on_bad_row=recipe.on_bad_row,
        verify_images=recipe.verify_images,
        written_as=args.reasoning_format if recipe.stage == "sft" else None,
        options=options,
    )
    rows = refuse_overlap(examples, name, owner)
    first = next(rows, None)
    if first is None:
        why = f"all {len(examples.bad_rows)} rows are bad" if examples.bad_rows else "there are no rows"
        raise ValueError(
            f"{describe_data(source)}, split {split}: {why}; expected at least one usable row. See `balanced inspect`"
        )
    rows = chain([first], rows)
    data = to_prompts_dataset(rows) if recipe.stage == "grpo" else to_dataset(rows, args.reasoning_format)
    if examples.bad_rows:
        logger.info("%s: %d bad rows were left out, %d remain", split, len(examples.bad_rows), len(data))
    data = mix_rows(data, source, args.seed if args.data_seed is None else args.data_seed)
    return LoadedSplit(data, len(examples.bad_rows))
