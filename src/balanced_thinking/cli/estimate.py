"""The command `estimate`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from balanced_thinking.cli.output import show_result
from balanced_thinking.cli.parser import Parser, integer_between, positive_integer, positive_number
from balanced_thinking.estimate.devices import CPU, GPUS, EstimateError, NotFittingError, find_device

_MOST_GPUS, _MOST_SIDE = 4096, 20_000


def add_estimate_options(parser: Parser) -> None:
    parser.add_argument("recipe", type=Path, help="the recipe, a YAML file")
    parser.add_argument(
        "--config",
        type=Path,
        action="append",
        help="a file that overrides keys of the recipe, such as one of recipes/hardware; may be repeated",
    )
    parser.add_argument("--gpu", default="h100", metavar="NAME", help=f"{CPU} (this machine), {', '.join(GPUS)}")
    parser.add_argument("--count", type=integer_between(1, _MOST_GPUS), help="GPUs  [the recipe's ranks, else 1]")
    parser.add_argument(
        "--sharding",
        choices=("ddp", "fsdp2", "zero2", "zero3"),
        help="how several GPUs share a training  [what the recipe says, else ddp: each holds all]",
    )
    parser.add_argument(
        "--lengths",
        metavar="MEAN,MAX",
        help="tokens of a sample in the mean and at most, picture included; the data are not read then  [counted in "
        "the recipe's data, else its max_length]",
    )
    parser.add_argument(
        "--picture",
        type=integer_between(0, _MOST_SIDE),
        default=1024,
        help="side in pixels of an assumed square picture in each sample, where the data are not read; 0: none",
    )
    parser.add_argument("--rows", type=positive_integer, help="rows of the data, where they are not read")
    parser.add_argument("--price", type=positive_number, help="price of a GPU hour, in your currency  [no cost]")
    parser.add_argument("--json", type=Path, help="write the estimate to this file, in bytes and seconds")
    parser.epilog = (
        "Keys of the recipe and training arguments follow as --name value, as for `balanced sft`. Exit code: 0 if it "
        "fits, 1 if it does not."
    )


def run_estimate(arguments: argparse.Namespace) -> None:
    from balanced_thinking.cli.training import refuse_unknown_names

    refuse_unknown_names(arguments.overrides, arguments.options, "sft")
    lengths = _read_lengths(arguments.lengths)
    find_device(arguments.gpu)  # raises for an unknown one
    from balanced_thinking.estimate.run import Question, estimate_training
    from balanced_thinking.estimate.text import describe_estimate
    from balanced_thinking.system.files import write_atomically

    question = Question(
        gpu=arguments.gpu,
        count=arguments.count,
        sharding=arguments.sharding,
        lengths=lengths,
        picture_side=arguments.picture or None,
        rows=arguments.rows,
        price=arguments.price,
    )
    files = [arguments.recipe, *(arguments.config or ())]
    found = estimate_training(files, arguments.overrides, question)
    show_result(describe_estimate(found))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(arguments.json, json.dumps(found.to_dict(), indent=2) + "\n")
    if not found.fits:
        raise NotFittingError(found.conclusion())


def _read_lengths(text: str | None) -> tuple[int, int] | None:
    """Raises EstimateError for anything but two numbers of which the second is not the smaller one."""
    if text is None:
        return None
    mean, _, longest = text.partition(",")
    if not (mean.isdecimal() and longest.isdecimal() and 1 < int(mean) <= int(longest) <= 10**6):
        raise EstimateError(f"--lengths is {text[:80]!r}; expected MEAN,MAX in tokens, such as 900,4096")
    return int(mean), int(longest)
