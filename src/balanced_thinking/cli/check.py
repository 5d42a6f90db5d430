"""The command `check`."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

from balanced_thinking.cli.data import read_data_options
from balanced_thinking.cli.output import show_result
from balanced_thinking.cli.parser import Parser, positive_integer

logger = logging.getLogger(__name__)


def add_check_options(parser: Parser) -> None:
    parser.add_argument(
        "model", help="a run directory, a checkpoint's folder, world-base, tiny:<architecture>, or a hub name"
    )
    parser.add_argument("--data", help="also check rows of this data set, as training would: a name or a path")
    parser.add_argument("--split", default="train", help="split of the data")
    parser.add_argument("--limit", type=positive_integer, default=64, help="maximum number of its rows to check")
    parser.add_argument("--format", default="think-answer", help="reasoning format of the completions")
    parser.add_argument(
        "--real-weights",
        action="store_true",
        help="check the model's real weights instead of a small copy with random ones; takes more memory and time",
    )
    parser.add_argument(
        "--layers",
        type=positive_integer,
        help="where the usual small copy cannot be made: keep all widths, and only this many layers",
    )
    parser.add_argument("--json", type=Path, help="write the table to this file, too")
    parser.epilog = "Options of the data set follow as --data_options.NAME value."


def run_check(arguments: argparse.Namespace) -> None:
    from balanced_thinking.config.errors import RecipeError
    from balanced_thinking.data.load import stream_data
    from balanced_thinking.models.find import check_model
    from balanced_thinking.segments import get_format

    # Names are checked before torch is imported, which takes seconds.
    options = read_data_options(arguments.overrides)
    if options and not arguments.data:
        raise RecipeError("--data_options belong to --data: name the data set, or leave them out")
    if arguments.real_weights and arguments.layers:
        raise RecipeError("--layers is about the shrunken copy, but --real-weights makes none: leave one of them out")
    get_format(arguments.format)
    check_model(arguments.model)
    if arguments.data:
        stream_data(arguments.data, split=arguments.split, options=options)
    from balanced_thinking.conformance.rows import UserData
    from balanced_thinking.conformance.run import check_model_conformance
    from balanced_thinking.conformance.table import NotConformingError
    from balanced_thinking.system.files import write_atomically

    data = UserData(arguments.data, arguments.split, arguments.limit, options) if arguments.data else None
    found = check_model_conformance(
        arguments.model,
        data=data,
        format=arguments.format,
        real_weights=arguments.real_weights,
        layers=arguments.layers,
        announce=logger.info,
    )
    show_result(found.table())
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(arguments.json, json.dumps(found.to_dict(), indent=2, ensure_ascii=False) + "\n")
    if found.failed:
        raise NotConformingError(found.conclusion())
    show_result(f"\n{found.conclusion()}")
