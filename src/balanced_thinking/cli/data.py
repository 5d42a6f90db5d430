"""The commands about data: `inspect` and `convert`, and the options that every command with data has."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balanced_thinking.cli.parser import Parser, positive

if TYPE_CHECKING:
    from balanced_thinking.data.example import Example

DATA = "data_options."


def data_options(parser: Parser) -> None:
    parser.add_argument("--limit", type=positive, help="rows to take at most")
    parser.add_argument("--on-bad-row", choices=("error", "drop"), default="error", help="what a bad row does")


def values(overrides: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """`--data_options.NAME value` as the data set's keyword arguments."""
    from balanced_thinking.config.yaml import read_yaml

    return {name.removeprefix(DATA): read_yaml(value, f"--{name} {value}") for name, value in overrides}


def inspect_options(parser: Parser) -> None:
    parser.add_argument("data", help="a data set's name or a path")
    parser.add_argument("--split", default="train", help="which split of it")
    parser.add_argument("--model", help="count tokens with this model's tokenizer  [words]")
    parser.add_argument("--format", default="think-answer", help="reasoning format that training would write")
    parser.add_argument("--limit", type=positive, help="rows to take at most")
    parser.add_argument("--html", type=Path, help="also write a page with samples here")
    parser.add_argument("--rows", type=Path, help="also write every row that something is wrong with to this .csv")
    parser.add_argument(
        "--against", action="append", metavar="BENCHMARK", help="look for this data set's test items; may be repeated"
    )
    parser.epilog = "Options of the data set follow as --data_options.NAME value."


def inspect(arguments: argparse.Namespace) -> Path | None:
    from balanced_thinking.inspection import describe, inspect_data, write_drops, write_page
    from balanced_thinking.models.load import load_processor

    found = inspect_data(
        arguments.data,
        split=arguments.split,
        format=arguments.format,
        limit=arguments.limit,
        options=values(arguments.overrides),
        processor=load_processor(arguments.model) if arguments.model else None,
        against=arguments.against or (),
    )
    print(describe(found))
    place = write_drops(found, arguments.rows) if arguments.rows else None
    if arguments.html is None:
        return place
    if place is not None:
        print(f"\n{place}")  # what comes last is the page
    return write_page(found, arguments.html)


def convert_options(parser: Parser) -> None:
    parser.add_argument("data", help="a data set's name or a path")
    parser.add_argument("--out", type=Path, required=True, help="the .jsonl file to write")
    parser.add_argument("--split", default="train", help="which split of it")
    parser.add_argument(
        "--format", help="write completions in this reasoning format  [question, think and answer apart]"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it is there")
    parser.add_argument("--without", type=Path, help="leave out the samples that `inspect --rows` wrote to this .csv")
    data_options(parser)
    parser.epilog = "Options of the data set follow as --data_options.NAME value."


def convert(arguments: argparse.Namespace) -> Path:
    from balanced_thinking.data.bad_rows import BadRow
    from balanced_thinking.data.convert import write_jsonl
    from balanced_thinking.data.load import stream_data
    from balanced_thinking.inspection import read_drops
    from balanced_thinking.segments import get_format

    left_out = read_drops(arguments.without) if arguments.without else frozenset()
    if arguments.format:
        get_format(arguments.format)
    if arguments.out.exists() and not arguments.overwrite:
        raise FileExistsError(
            f"{arguments.out} is there already; add --overwrite to replace it, or choose another --out"
        )
    bad_rows: list[BadRow] = []
    examples = stream_data(
        arguments.data,
        split=arguments.split,
        options=values(arguments.overrides),
        on_bad_row=arguments.on_bad_row,
        limit=arguments.limit,
        bad_rows=bad_rows,
    )
    kept = _without(examples, left_out, arguments.without)
    count = write_jsonl(kept, arguments.out, format=arguments.format)
    told = [f"{count} rows"]
    told += [f"{len(bad_rows)} bad ones left out"] if bad_rows else []
    told += [f"{len(left_out)} of {arguments.without} left out"] if left_out else []
    print(", ".join(told))
    return arguments.out


def _without(examples: Iterable[Example], left_out: frozenset[str], table: Path | None) -> Iterator[Example]:
    """The examples but for those. Raises ValueError, before anything is written, where some were never met."""
    missing = set(left_out)
    for example in examples:
        if example.id in left_out:
            missing.discard(example.id)
        else:
            yield example
    if missing:
        raise ValueError(
            f"{len(missing)} of the {len(left_out)} samples to leave out ({min(missing)} is one) are not in this data: "
            f"let `balanced inspect --rows {table}` look at this very file and split"
        )
