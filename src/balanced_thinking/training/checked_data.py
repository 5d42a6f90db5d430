"""The rows that a run trains on: read, checked before the first step, and without those that cannot be used.

What was found is kept with the run (`preflight.json`), so that a resumed run leaves out the same rows and keeps its
order, even where a file has changed or disappeared in the meantime.
"""

from __future__ import annotations

import hashlib
import json
import logging
from bisect import bisect
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.batch.pictures import refuse_unsuited_cache
from balanced_thinking.batch.row_check import RowChecker
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.foreign_json import read_json_file
from balanced_thinking.data.bad_rows import BadRow, BadRowsError, DataError
from balanced_thinking.data.mixture import describe_data, mix_rows
from balanced_thinking.models.processor_parts import takes_pictures
from balanced_thinking.runs.paths import RunFiles
from balanced_thinking.system.files import write_atomically
from balanced_thinking.training.checks import read_sample_size
from balanced_thinking.training.preflight import Preflight, check_rows
from balanced_thinking.training.recipe import Recipe
from balanced_thinking.training.splits import TRAINING, VALIDATION, read_splits
from balanced_thinking.training.stored_rows import SplitRows, StoredPreflight, digest_of, stamp_pictures

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


class CheckedSplit(NamedTuple):
    """A split without the rows that cannot be used.

    dropped: bad rows of the data that were left out. too_long: rows that `overflow` leaves out. record: what
    `preflight.json` holds about it.
    """

    rows: Any
    dropped: int
    too_long: int
    record: dict[str, Any]


class CheckedData(NamedTuple):
    training: CheckedSplit
    validation: CheckedSplit | None

    def write_record(self, out: Path) -> None:
        """Keep the result with the run."""
        splits = {TRAINING: self.training} | ({VALIDATION: self.validation} if self.validation else {})
        text = json.dumps({name: split.record for name, split in splits.items()}, indent=1)
        write_atomically(RunFiles(out).preflight, text + "\n")


def load_checked_data(recipe: Recipe, args: Any, processor: Any, out: Path, *, resume: bool) -> CheckedData:
    """Read a recipe's splits and check their rows.

    Raises BadRowsError with all bad rows of a split, unless `on_bad_row` is `drop`; DataError where no row is left, or
    where the data of a resumed run are not those that it was started with.
    """
    if getattr(args, "image_cache", None) and takes_pictures(processor):
        refuse_unsuited_cache(processor.image_processor)
    splits, state = read_splits(recipe, args)
    before = _read_record(out) if resume else {}
    checked = {
        name: _check_split(recipe, args, processor, rows, f"{state}{name}" if state else None, name, before.get(name))
        for name, rows in splits.items()
    }
    training, validation = checked[TRAINING], checked.get(VALIDATION)
    seed = args.seed if args.data_seed is None else args.data_seed
    return CheckedData(training._replace(rows=mix_rows(training.rows, recipe.data, seed)), validation)


def _check_split(
    recipe: Recipe,
    args: Any,
    processor: Any,
    split: SplitRows,
    state: str | None,
    name: str,
    before: Mapping[str, Any] | None,
) -> CheckedSplit:
    where = f"{describe_data(recipe.data)}, split {recipe.split if name == TRAINING else recipe.validation_split}"
    identity = hashlib.sha256("\n".join(split.rows["id"]).encode()).hexdigest()
    if before is not None and before["ids"] != identity:
        raise DataError(
            f"{where}: the data have {len(split.rows):,} rows that are not those ({before['rows']:,}) with which the "
            "run was started; restore the data, or start a new run with another --out"
        )
    if before is not None and recipe.stage == "grpo" and recipe.on_bad_row == "drop":
        recipe = replace(recipe, preflight="all", verify_images=True)  # a bad row may have stopped the run
    found = on_first_rank(lambda: _find_problems(recipe, args, processor, split, state, name))
    unread = f"{len(split.bad_rows):,} rows cannot be used; of the others " if split.bad_rows else ""
    logger.info("%s: %s%s", where, unread, found.summary())
    bad_rows = [*split.bad_rows, *found.bad_rows(split.numbers, split.rows["id"])]
    if bad_rows and recipe.on_bad_row == "error":
        raise BadRowsError(where, sorted(bad_rows, key=lambda bad: bad.row))
    left_out = sorted({*found.problems, *found.too_long})
    if before is not None:  # the same rows in the same order; what was found since then is dropped when it comes
        left_out = before["left_out"]
    kept = sorted(set(range(len(split.rows))) - set(left_out))
    if not kept:
        raise _no_row_left(where, found, bad_rows, args)
    if before is not None and recipe.stage == "grpo":
        kept = _fill_places(kept, found.problems, where)
    if left_out or bad_rows:
        out = len(split.bad_rows) + len(left_out)
        logger.info("%s: %d %s left out, %d remain", where, out, "row was" if out == 1 else "rows were", len(kept))
    record = {
        "rows": len(split.rows),
        "ids": identity,
        "looked_at": found.looked_at,
        "left_out": left_out,
        "too_long": len(found.too_long),
        "bad_rows": [{"row": b.row, "id": b.id, "problems": list(b.problems), "text": b.text} for b in bad_rows],
    }
    return CheckedSplit(_select_rows(split.rows, kept), len(bad_rows), len(found.too_long), record)


def _fill_places(kept: list[int], bad: Collection[int], where: str) -> list[int]:
    """Put the next good row in the place of each bad one, so that the order of a resumed run stays the same.

    GRPO cannot drop a row when it comes: a generation has a fixed number of prompts.
    """
    good = [index for index in kept if index not in bad]
    if len(good) in (0, len(kept)):
        return good
    logger.info("%s: other rows take the places of %d that turned out to be bad", where, len(kept) - len(good))
    return [index if index not in bad else good[bisect(good, index) % len(good)] for index in kept]


def _select_rows(rows: Any, kept: list[int]) -> Any:
    """These rows; without the column of pictures if none of them has any, because text-only models do not accept it."""
    if kept == list(range(len(rows))):
        return rows
    rows = rows.select(kept)
    if "images" in rows.column_names and not any(map(len, rows.with_format("numpy")["images"])):
        return rows.remove_columns("images")
    return rows


def _no_row_left(where: str, found: Preflight, bad_rows: list[BadRow], args: Any) -> DataError:
    if bad_rows:
        return BadRowsError(f"{where}, has no usable row", bad_rows)
    return DataError(
        f"{where}: no sample can be used for training: all {len(found.too_long)} are longer than max_length="
        f"{args.max_length}, and overflow={args.overflow} leaves them out. Raise max_length, or set overflow=trim_think"
    )


def _find_problems(
    recipe: Recipe, args: Any, processor: Any, split: SplitRows, state: str | None, name: str
) -> Preflight:
    sample = read_sample_size(recipe.preflight)
    checker = make_row_checker(recipe, args, processor)
    stored = None
    if state is not None:  # which does not know the pictures that the rows name
        stored = StoredPreflight(digest_of(state, stamp_pictures(split.rows), checker.fingerprint(), sample))
    if stored is not None and (known := stored.load()) is not None:
        return replace(known, seconds=0.0)
    found = check_rows(split.rows, checker, f"{name} rows", sample=sample)
    if stored is not None:
        stored.save(found)
    return found


def make_row_checker(recipe: Recipe, args: Any, processor: Any) -> RowChecker:
    """The check of a row with the settings of the training."""
    trained = recipe.stage == "sft"
    limits = (args.max_length, args.overflow) if trained else (None, "error")
    collator = ScaleCollator(processor, args.reasoning_format, *limits)
    return RowChecker(collator, completions=trained, verify_images=recipe.verify_images)


def on_first_rank(work: Callable[[], Result]) -> Result:
    """Let one rank work, and give all ranks its result or its error."""
    shared: list[Any] = [None, None]
    if PartialState().is_main_process:
        try:
            shared = [work(), None]
        except Exception as error:  # which every rank must learn of, or the others wait for ever
            shared = [None, error]
    result, failure = broadcast_object_list(shared)
    if failure is not None:
        raise failure
    return result


def _read_record(out: Path) -> Mapping[str, Any]:
    """What the run was started with; empty where it was started by a version that did not keep it."""
    file = RunFiles(out).preflight
    if not file.is_file():
        return {}
    try:
        return read_json_file(file)
    except ValueError as error:
        raise RecipeError(f"{file} is not valid JSON ({error}); delete it to check the data again") from error
