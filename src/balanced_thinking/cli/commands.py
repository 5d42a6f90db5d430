"""The commands, and the command line as the arguments of one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from balanced_thinking.cli.chat import add_chat_options, run_chat
from balanced_thinking.cli.check import add_check_options, run_check
from balanced_thinking.cli.completion import SHELLS, PrintCompletion
from balanced_thinking.cli.data import (
    DATA_PREFIX,
    IMAGE_PREFIX,
    add_conversion_options,
    add_inspection_options,
    run_conversion,
    run_inspection,
)
from balanced_thinking.cli.estimate import add_estimate_options, run_estimate
from balanced_thinking.cli.evaluation import add_evaluation_options, run_evaluation
from balanced_thinking.cli.export import add_export_options, run_export
from balanced_thinking.cli.output import add_output_options
from balanced_thinking.cli.parser import Parser, split_pairs
from balanced_thinking.cli.study import (
    add_demo_options,
    add_report_options,
    add_study_options,
    run_demo,
    run_report,
    run_study_file,
)
from balanced_thinking.cli.training import add_training_options, run_training


@dataclass(frozen=True)
class Command:
    """One command: its help, its options, what it runs, and what is said where it stops or needs too much memory.

    `further` are prefixes of `--name value` pairs that it takes beside its options; "" is that of any name.
    """

    help: str
    add_options: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], Path | str | None]
    further: tuple[str, ...] = ()
    when_stopped: str = ""
    saves_memory: str = ""


_RESUMES = "; with --resume it continues from its last checkpoint"
_CONTINUES = "; the same command continues where it stopped"
_BATCH = "; lower per_device_train_batch_size (gradient_accumulation_steps makes up for it), image_options.max_pixels"
COMMANDS = {
    "sft": Command(
        "Train with SCALe-SFT or plain SFT",
        partial(add_training_options, stage="sft"),
        run_training,
        further=("",),
        when_stopped=_RESUMES,
        saves_memory=f"{_BATCH} or max_length, or train an adapter (lora.r)",
    ),
    "grpo": Command(
        "Train a model further with GRPO",
        partial(add_training_options, stage="grpo"),
        run_training,
        further=("",),
        when_stopped=_RESUMES,
        saves_memory=f"{_BATCH} or max_completion_length, or train an adapter (lora.r)",
    ),
    "estimate": Command(
        "Estimate memory, time and cost of a training before paying for it",
        add_estimate_options,
        run_estimate,
        further=("",),
    ),
    "eval": Command(
        "Generate and score answers, and keep every sample",
        add_evaluation_options,
        run_evaluation,
        further=(DATA_PREFIX, IMAGE_PREFIX),
        when_stopped=_CONTINUES,
        saves_memory="; lower --batch-size or --max-new-tokens",
    ),
    "export": Command(
        "Write a run's model as a complete folder with a model card, and verify it in plain transformers",
        add_export_options,
        run_export,
        saves_memory="; choose --dtype bfloat16",
    ),
    "chat": Command(
        "Try models by hand, in the terminal or in a browser",
        add_chat_options,
        run_chat,
        further=(IMAGE_PREFIX,),
        saves_memory="; ask fewer models at once, or lower --max-new-tokens",
    ),
    "check": Command(
        "Check whether a model can be trained, packed, evaluated and resumed exactly",
        add_check_options,
        run_check,
        further=(DATA_PREFIX,),
        saves_memory="; leave --real-weights out",
    ),
    "inspect": Command(
        "Describe a data set and what is wrong with it",
        add_inspection_options,
        run_inspection,
        further=(DATA_PREFIX, IMAGE_PREFIX),
    ),
    "convert": Command(
        "Write a data set as JSON Lines", add_conversion_options, run_conversion, further=(DATA_PREFIX,)
    ),
    "study": Command(
        "Train and evaluate all arms of a study with all seeds, and compare them",
        add_study_options,
        run_study_file,
        when_stopped=_CONTINUES,
    ),
    "report": Command("Write one page that compares runs", add_report_options, run_report),
    "demo": Command(
        "Run the built-in study: train all arms, evaluate them, write the report",
        add_demo_options,
        run_demo,
        when_stopped=_CONTINUES,
    ),
}


def read_command_line(words: Sequence[str]) -> tuple[argparse.Namespace, Parser]:
    """The arguments of one command, and its parser. Raises SystemExit for wrong usage, --help and --version.

    Of the arguments, `overrides` are the further `--name value` pairs, `options` the command's own options, and
    `given` those of them that are on the command line.
    """
    words = list(words)
    parser, parsers = make_parsers(*words[:1])
    if words and words[0] in parsers:
        command = parsers[words[0]]
        words = command.respell_options(words)
        command.refuse_unknown(words[1:], COMMANDS[words[0]].further)
    arguments, rest = parser.parse_known_args(words)
    command = parsers[arguments.command]
    arguments.overrides, arguments.options = split_pairs(rest, command), command.option_names()
    arguments.given = command.given_options(words)
    return arguments, command


def make_parsers(used: str = "") -> tuple[Parser, dict[str, Parser]]:
    """The parser of the complete command line, and that of each command. Where the used command is known, the others
    have no options: making them takes longer than reading a command line."""
    parser = Parser(
        prog="balanced",
        description="Fine-tune vision-language models to reason and to answer correctly, and compare ways to train.",
        epilog='For completion in bash, put eval "$(balanced --print-completion bash)" in ~/.bashrc.',
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show the version and exit")
    parser.add_argument(
        "--print-completion", action=PrintCompletion, choices=SHELLS, help="print the completion script of a shell"
    )
    add: Any = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    parsers: dict[str, Parser] = {}
    for name, command in COMMANDS.items():
        parsers[name] = add.add_parser(name, help=command.help, description=f"{command.help}.")
        if name == used or used not in COMMANDS:
            command.add_options(parsers[name])
            add_output_options(parsers[name])
    return parser, parsers


class _ShowVersion(argparse.Action):
    """Looks the version up only when it is asked for: that takes longer than the rest of the command line."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        from balanced_thinking import __version__

        sys.stdout.write(f"balanced-thinking {__version__}\n")
        parser.exit(0)
