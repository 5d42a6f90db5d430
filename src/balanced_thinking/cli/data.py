"""The commands about data: `inspect` and `convert`, and the options that every command with data has."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balanced_thinking.cli.output import show_result
from balanced_thinking.cli.parser import Parser, positive_integer, token_count
from balanced_thinking.config.errors import FileInTheWayError, RecipeError
from balanced_thinking.data.permissions import permit
from balanced_thinking.system.locks import hold_file

if TYPE_CHECKING:
    from balanced_thinking.data.example import Example
    from balanced_thinking.inspection import Inspection

logger = logging.getLogger(__name__)
URLS_HELP = "fetch pictures that rows name by a web address, from public hosts only"
OUTSIDE_HELP = "also copy pictures that are outside the folder of the data (or image_root) into results"
DATA_PREFIX, IMAGE_PREFIX = "data_options.", "image_options."


def add_data_options(parser: Parser) -> None:
    parser.add_argument("--allow-urls", action="store_true", help=URLS_HELP)
    parser.add_argument("--limit", type=positive_integer, help="maximum number of rows to read")
    parser.add_argument(
        "--on-bad-row",
        choices=("error", "drop"),
        default="error",
        help="what happens if there are bad rows: error, or drop to leave them out",
    )


def read_data_options(overrides: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """`--data_options.NAME value` as the data set's keyword arguments."""
    return _read_prefixed_options(overrides, DATA_PREFIX)


def read_image_options(overrides: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """`--image_options.NAME value` as the image processor's keyword arguments."""
    return _read_prefixed_options(overrides, IMAGE_PREFIX)


def _read_prefixed_options(overrides: Sequence[tuple[str, str]], prefix: str) -> dict[str, Any]:
    from balanced_thinking.config.yaml import read_yaml

    return {
        name.removeprefix(prefix): read_yaml(value, f"--{name} {value}")
        for name, value in overrides
        if name.startswith(prefix)
    }


def add_inspection_options(parser: Parser) -> None:
    parser.add_argument("data", nargs="+", help="a data set's name or a path, or several")
    parser.add_argument("--split", default="train", help="split of the data")
    parser.add_argument("--model", help="count tokens with this model's tokenizer  [count words]")
    parser.add_argument(
        "--format", default="think-answer", help="reasoning format of the completions that training would write"
    )
    parser.add_argument(
        "--max-length", type=token_count, default=4096, help="with --model: longer samples are bad rows"
    )
    parser.add_argument("--limit", type=positive_integer, help="maximum number of rows to read")
    parser.add_argument(
        "--losses",
        action="store_true",
        help="with --model: also load its weights, and measure on up to 256 rows how varied the wording is, and how "
        "many steps the model contradicts",
    )
    parser.add_argument("--html", type=Path, help="write a page with samples to this file")
    parser.add_argument("--allow-outside", action="store_true", help=OUTSIDE_HELP)
    parser.add_argument("--allow-urls", action="store_true", help=URLS_HELP)
    parser.add_argument("--rows", type=Path, help="write every row that has a problem to this .csv")
    parser.add_argument(
        "--against",
        action="append",
        metavar="BENCHMARK",
        help="also look for test items of this data set among the rows; may be repeated",
    )
    parser.epilog = (
        "Options of the data set follow as --data_options.NAME value, with --model options of the image processor as "
        "--image_options.NAME value."
    )


def run_inspection(arguments: argparse.Namespace) -> None:
    from balanced_thinking.data.load import stream_data
    from balanced_thinking.segments import get_format

    # Names are checked before anything heavy is imported. Nothing is read yet.
    options, image_options = read_data_options(arguments.overrides), read_image_options(arguments.overrides)
    if image_options and not arguments.model:
        raise RecipeError("--image_options belong to --model: name the model, or leave them out")
    if arguments.losses and not arguments.model:
        raise RecipeError("--losses are those of a model: name it with --model, or leave --losses out")
    get_format(arguments.format)
    data = _one_or_several(arguments.data)
    stream_data(data, split=arguments.split, options=options)
    from balanced_thinking.inspection import describe_inspection, inspect_data, write_page, write_removals

    found = inspect_data(
        data,
        split=arguments.split,
        format=arguments.format,
        limit=arguments.limit,
        options=options,
        processor=_load_processor(arguments.model, image_options) if arguments.model else None,
        max_length=arguments.max_length,
        against=arguments.against or (),
    )
    if arguments.losses:
        found = _measure_losses(found, arguments.model, image_options)
    show_result(describe_inspection(found))
    if arguments.rows:
        show_result(f"\n{write_removals(found, arguments.rows)}")
    if arguments.html:
        with permit(outside=arguments.allow_outside):
            show_result(f"\n{write_page(found, arguments.html)}")


def _one_or_several(data: list[str]) -> str | list[str]:
    return data[0] if len(data) == 1 else data


def _load_processor(model: str, image_options: Mapping[str, Any]) -> Any:
    """Checked before torch is imported, which takes seconds, and not imported without a model."""
    from balanced_thinking.models.find import check_model

    check_model(model)
    from balanced_thinking.models.load import load_processor

    return load_processor(model, image_options)


def _measure_losses(found: Inspection, model: str, image_options: Mapping[str, Any]) -> Inspection:
    from balanced_thinking.evaluation.engines.start import read_engine, resolve_dtype
    from balanced_thinking.inspection import measure_losses
    from balanced_thinking.models.load import load_model

    dtype = resolve_dtype(read_engine(None), model).dtype  # as in an evaluation
    return measure_losses(found, load_model(model, image_options=image_options, dtype=dtype), name=model)


def add_conversion_options(parser: Parser) -> None:
    parser.add_argument("data", nargs="+", help="a data set's name or a path, or several")
    parser.add_argument("--out", type=Path, required=True, help="the .jsonl file to write")
    parser.add_argument("--split", default="train", help="split of the data")
    parser.add_argument(
        "--format", help="write completions in this reasoning format  [question, think and answer as separate keys]"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    parser.add_argument("--without", type=Path, help="leave out the samples in this .csv, which `inspect --rows` wrote")
    add_data_options(parser)
    parser.epilog = "Options of the data set follow as --data_options.NAME value."


def run_conversion(arguments: argparse.Namespace) -> Path:
    from balanced_thinking.segments import get_format

    left_out = _read_removals(arguments.without) if arguments.without else {}
    if arguments.format:
        get_format(arguments.format)
    with hold_file(arguments.out, "writing"):
        return _convert_alone(arguments, left_out)


def _convert_alone(arguments: argparse.Namespace, left_out: Mapping[str, str]) -> Path:
    """`run_conversion` by the only process that writes this file."""
    from balanced_thinking.data.load import stream_data

    if arguments.out.exists() and not arguments.overwrite:
        raise FileInTheWayError(
            f"{arguments.out} exists already; add --overwrite to replace it, or choose another --out"
        )
    examples = stream_data(
        _one_or_several(arguments.data),
        split=arguments.split,
        options=read_data_options(arguments.overrides),
        on_bad_row=arguments.on_bad_row,
        limit=arguments.limit,
    )
    from balanced_thinking.data.convert import write_jsonl  # late: it imports heavy libraries

    kept = _leave_out(examples, left_out, arguments.without) if left_out else examples
    count = write_jsonl(kept, arguments.out, format=arguments.format)
    notes = [f"{count} rows"]
    notes += [f"{len(examples.bad_rows)} bad ones left out"] if examples.bad_rows else []
    notes += [f"{len(left_out)} of {arguments.without} left out"] if left_out else []
    logger.info("%s", ", ".join(notes))
    return arguments.out


def _read_removals(table: Path) -> dict[str, str]:
    from balanced_thinking.inspection import read_removals  # which imports heavy libraries

    return read_removals(table)


def _leave_out(examples: Iterable[Example], left_out: Mapping[str, str], table: Path) -> Iterator[Example]:
    from balanced_thinking.inspection import leave_out_samples  # which imports heavy libraries

    return leave_out_samples(examples, left_out, table)
