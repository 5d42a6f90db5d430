"""The command `balanced`. Heavy libraries are imported by the command that needs them, so that `--help` is instant."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from balanced_thinking.cli.data import DATA, convert, convert_options, inspect, inspect_options
from balanced_thinking.cli.evaluation import evaluation_options, run_evaluation
from balanced_thinking.cli.parser import Parser, pairs_of
from balanced_thinking.cli.study import (
    demo_options,
    report_options,
    run_demo,
    run_report,
    run_study_command,
    study_options,
)
from balanced_thinking.cli.training import stage_options, train
from balanced_thinking.system.ending import clean_up_on_sigterm


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 where it did what was asked, 1 where it failed, 2 for wrong usage."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser, commands = _parsers()
    if words and words[0] in commands:
        words = commands[words[0]].with_dashes(words)
    if words and words[0] in commands and (prefix := _COMMANDS[words[0]][3]) != "":
        commands[words[0]].refuse_unknown(words[1:], prefix)
    arguments, rest = parser.parse_known_args(words)
    command = commands[arguments.command]
    arguments.overrides, arguments.options = pairs_of(rest, command), command.options()
    with clean_up_on_sigterm():
        try:
            return _run(arguments.run, arguments, command)
        except KeyboardInterrupt:
            print(f"\nbalanced {arguments.command}: stopped{_GOES_ON.get(arguments.command, '')}", file=sys.stderr)
            return 1


def _run(run: Callable[..., Path | None], arguments: argparse.Namespace, command: Parser) -> int:
    from balanced_thinking.config.errors import RecipeError
    from balanced_thinking.data.bad_rows import BadRowsError
    from balanced_thinking.study.run import StudyError

    # Warnings of the libraries underneath that no user of ours can act on.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|trl")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        try:
            result = run(arguments)
        except BaseException:
            _end_bars()
            raise
    except RecipeError as error:
        command.error(str(error))
    except BadRowsError as error:
        print(error.table(), file=sys.stderr)
        print("\nNone of it was used: mend the rows, or go on without them with --on-bad-row drop.", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (StudyError, ValueError, OSError, FloatingPointError, ImportError) as error:
        print(f"balanced {arguments.command}: {error}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's own
            raise
        print(f"balanced {arguments.command}: {error}{_SMALLER.get(arguments.command, '')}", file=sys.stderr)
        return 1
    if result is not None:
        print(f"\n{result}")
    return 0


def _end_bars() -> None:
    """End the line of each progress bar that was cut off, so that what is said next stands on its own."""
    if (tqdm := sys.modules.get("tqdm.std")) is not None:
        for bar in list(getattr(tqdm.tqdm, "_instances", ())):
            bar.close()


def _parsers() -> tuple[Parser, dict[str, Parser]]:
    parser = Parser(prog="balanced", description="Teach vision-language models to reason and be right.")
    parser.add_argument("--version", action="version", version=_version())
    add = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    commands: dict[str, Parser] = {}
    for name, (text, options, run, _) in _COMMANDS.items():
        commands[name] = add.add_parser(name, help=text, description=text + ".")
        options(commands[name])
        commands[name].set_defaults(run=run)
    return parser, commands


def _version() -> str:
    from importlib.metadata import version

    return f"balanced-thinking {version('balanced-thinking')}"


# What makes a command take less memory.
_BATCH = "; lower per_device_train_batch_size (gradient_accumulation_steps makes up for it), image_options.max_pixels"
_SMALLER = {
    "sft": f"{_BATCH} or max_length, or train an adapter (lora.r)",
    "grpo": f"{_BATCH} or max_completion_length, or train an adapter (lora.r)",
    "eval": "; lower --batch-size or --max-new-tokens",
}
# What a command that was stopped does when it is given again.
_GOES_ON = dict.fromkeys(("sft", "grpo"), "; with --resume it goes on from its last checkpoint")
_GOES_ON |= dict.fromkeys(("eval", "study", "demo"), "; the same command goes on where it was")
# name -> (help, its options, what it runs, prefix of further --name value pairs that it takes: "" any, None none)
_COMMANDS: dict[str, tuple[str, Callable[[Parser], None], Callable[[argparse.Namespace], Path | None], str | None]] = {
    "sft": ("Train with SCALe-SFT or plain SFT", partial(stage_options, stage="sft"), train, ""),
    "grpo": ("Go on from a trained model with GRPO", partial(stage_options, stage="grpo"), train, ""),
    "eval": ("Generate, score and keep every sample", evaluation_options, run_evaluation, DATA),
    "inspect": ("Say what is in this data and what is wrong with it", inspect_options, inspect, DATA),
    "convert": ("Write a data set as JSON Lines", convert_options, convert, DATA),
    "study": (
        "Run arms x settings x seeds, what is missing of them, and compare them",
        study_options,
        run_study_command,
        None,
    ),
    "report": ("Write one page that compares runs", report_options, run_report, None),
    "demo": ("Run the embedded study: train all arms, evaluate them, write the report", demo_options, run_demo, None),
}
