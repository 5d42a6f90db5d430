"""The rows of a recipe's splits, read and checked, as the trainers take them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

from datasets import Dataset, concatenate_datasets

from balanced_thinking.data.bad_rows import BadRowsError, DataError
from balanced_thinking.data.example import Example
from balanced_thinking.data.load import choose_read_format, stream_data
from balanced_thinking.data.mixture import describe_data, list_parts, validation_data
from balanced_thinking.data.overlap import refuse_overlap
from balanced_thinking.data.rows import ANSWER_FEATURES, to_dataset, to_prompts_dataset
from balanced_thinking.segments import get_format
from balanced_thinking.training.recipe import Recipe
from balanced_thinking.training.stored_rows import SplitRows, StoredRows, code_stamp, digest_of, fingerprint_files

logger = logging.getLogger(__name__)
TRAINING, VALIDATION = "training", "validation"


def read_splits(recipe: Recipe, args: Any) -> tuple[dict[str, SplitRows], str | None]:
    """The splits by name, and the name of their state; None where it cannot be known.

    Pictures are not opened here. Raises DataError where a split has no usable row, or two splits share a sample.
    """
    state = _name_state(recipe, args)
    names = [TRAINING, *([VALIDATION] if recipe.validation_split else [])]
    stored = StoredRows(state) if state is not None else None
    if stored is not None and (found := stored.load(names)) is not None:
        logger.info("%s is unchanged since it was last read, and is not read again", describe_data(recipe.data))
        return found, state
    owner: dict[int, str] = {}
    splits = {name: _read_split(recipe, args, name, owner) for name in names}
    # A picture that is missing today may be there tomorrow, and no file of the data would show it.
    missing = any("image" in problem for one in splits.values() for bad in one.bad_rows for problem in bad.problems)
    if stored is not None and not missing:
        stored.save(splits)
    return splits, state


def _name_state(recipe: Recipe, args: Any) -> str | None:
    """A name for everything that the rows follow from."""
    files = fingerprint_files(part.data for part in list_parts(recipe.data))
    if files is None:
        return None
    splits = [recipe.split, recipe.data_options, recipe.validation_split, recipe.validation_options]
    how = [recipe.data, *splits, recipe.limit, recipe.stage, _read_format(recipe), _written_format(args)]
    how.append(_answers_are_kept(recipe))
    return digest_of(code_stamp(), files, how)


def _answers_are_kept(recipe: Recipe) -> bool:
    """Whether answers are generated for validation rows of SFT, and compared with their right ones."""
    return recipe.stage == "sft" and bool(recipe.training.get("validation_generate"))


def _read_format(recipe: Recipe) -> Any:
    return choose_read_format(recipe.training.get("reasoning_format"))


def _written_format(args: Any) -> str:
    return repr(get_format(args.reasoning_format))


def _read_split(recipe: Recipe, args: Any, name: str, owner: dict[int, str]) -> SplitRows:
    """Read a split. `owner` holds the examples of earlier splits, which must not occur again."""
    training = name == TRAINING
    source = recipe.data if training else validation_data(recipe.data)
    split = recipe.split if training else recipe.validation_split or ""
    where = f"{describe_data(source)}, split {split}"
    examples = stream_data(
        source,
        split=split,
        format=_read_format(recipe),
        limit=recipe.limit,
        on_bad_row="drop",
        written_as=args.reasoning_format if recipe.stage == "sft" else None,
        options=recipe.data_options if training else recipe.validation_options,
    )
    numbers: list[int] = []
    kept: list[_Answers] = []
    rows = _note_numbers(refuse_overlap(examples, name, owner), numbers)
    if not training and _answers_are_kept(recipe):
        rows = _keep_answers(rows, kept)
    data = to_prompts_dataset(rows) if recipe.stage == "grpo" else to_dataset(rows, args.reasoning_format)
    if not len(data):
        if examples.bad_rows:
            raise BadRowsError(f"{where}, has no usable row", examples.bad_rows)
        if (recipe.data_options if training else recipe.validation_options).get("hash_split"):
            raise DataError(
                f"{where}: there are no rows; hash_split divides the data by their pictures, and these have too few "
                "different ones. Set validation_split: null and hash_split: false, or name a file for each split"
            )
        raise DataError(f"{where}: there are no rows; expected at least one usable row. See `balanced inspect`")
    if kept:
        columns = {name: [getattr(one, name) for one in kept] for name in _Answers._fields}
        data = concatenate_datasets([data, Dataset.from_dict(columns, ANSWER_FEATURES)], axis=1)
    return SplitRows(data, numbers, tuple(examples.bad_rows))


class _Answers(NamedTuple):
    """What an example's answer is scored with."""

    answer: str
    choices: tuple[str, ...]
    alternatives: tuple[str, ...]


def _keep_answers(examples: Iterator[Example], kept: list[_Answers]) -> Iterator[Example]:
    """Pass on the examples, and keep the answers of each."""
    for example in examples:
        kept.append(_Answers(example.answer, example.choices, example.alternatives))
        yield example


def _note_numbers(examples: Iterator[Example], numbers: list[int]) -> Iterator[Example]:
    """Pass on the examples, and note the number of each row in its file."""
    for position, example in enumerate(examples, 1):
        numbers.append(example.meta.get("row", position))
        yield example
