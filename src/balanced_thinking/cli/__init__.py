"""The command `balanced`. Heavy libraries are imported by the command that needs them, so that `--help` is instant."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from balanced_thinking.cli.data import DATA, convert, convert_options, data_options, inspect, inspect_options, values
from balanced_thinking.cli.parser import Parser, pairs_of, positive
from balanced_thinking.cli.training import stage_options, train
from balanced_thinking.ending import orderly_end


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
    with orderly_end():
        try:
            return _run(arguments.run, arguments, command)
        except KeyboardInterrupt:
            print(f"\nbalanced {arguments.command}: stopped{_GOES_ON.get(arguments.command, '')}", file=sys.stderr)
            return 1


def _run(run: Callable[..., Path | None], arguments: argparse.Namespace, command: Parser) -> int:
    from balanced_thinking.data.checks import BadRowsError
    from balanced_thinking.study.run import StudyError
    from balanced_thinking.training.recipe import RecipeError

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


def _eval_options(parser: Parser) -> None:
    parser.add_argument(
        "--model",
        required=True,
        help="a run directory or its model folder, a checkpoint's folder, world-base, or a hub name",
    )
    parser.add_argument(
        "--server", help="ask this OpenAI-compatible server, as in http://localhost:8000/v1, which serves it"
    )
    parser.add_argument(
        "--engine", choices=("transformers", "vllm"), default="transformers", help="who generates in this process"
    )
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="number type of the weights; auto: on a GPU the checkpoint's own, on a CPU float32",
    )
    parser.add_argument("--served-model", help="the model's name there  [the only one that the server lists]")
    parser.add_argument("--data", action="append", help="a data set's name or a path; may be repeated for several")
    parser.add_argument(
        "--benchmarks",
        type=Path,
        help="data sets with splits, prompt and scorer of their own, as YAML (docs/data.md); the options below fill "
        "what one leaves out",
    )
    parser.add_argument("--split", default="test", help="which split of it")
    parser.add_argument(
        "--out", type=Path, help="folder of the results  [RUN/eval/<data>-<split>, or runs/<model>/eval/<data>-<split>]"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the results that the folder holds; what this evaluation had answered when it was stopped is kept",
    )
    parser.add_argument("--format", help="reasoning format of the model's outputs  [the run's, else think-answer]")
    parser.add_argument(
        "--prompt",
        default="question",
        help="how it is asked: question (as in training), instructed, or lmms-<benchmark>",
    )
    parser.add_argument(
        "--scorer",
        default="exact",
        help="how an answer is judged: exact, numeric, lmms, lmms-raw, anls, relaxed or official",
    )
    parser.add_argument("--batch-size", type=positive, default=64, help="samples generated together")
    parser.add_argument("--max-new-tokens", type=positive, default=512, help="tokens after which an output is cut off")
    data_options(parser)
    parser.epilog = "Options of the data set follow as --data_options.NAME value."


def _eval(arguments: argparse.Namespace) -> Path:
    from balanced_thinking.evaluation.benchmarks import Benchmark, load_benchmarks
    from balanced_thinking.evaluation.run import evaluate_on_each
    from balanced_thinking.training.recipe import RecipeError

    names = ("limit", "on_bad_row", "batch_size", "max_new_tokens", "prompt", "scorer")
    shared = {name: getattr(arguments, name) for name in names} | {"splits": (arguments.split,)}
    options = values(arguments.overrides)
    data = arguments.data or []
    if options and not data:
        raise RecipeError("--data_options belong to --data: a data set of --benchmarks has its own under `options`")
    benchmarks = [Benchmark(name, options=options, **shared) for name in data]
    if arguments.benchmarks:
        benchmarks += load_benchmarks(arguments.benchmarks, **shared)
    if not benchmarks:
        raise RecipeError("there is nothing to evaluate on: name it with --data, or several with --benchmarks")
    places = evaluate_on_each(
        arguments.model,
        benchmarks,
        out=arguments.out,
        format=arguments.format,
        overwrite=arguments.overwrite,
        server=arguments.server,
        served=arguments.served_model,
        engine=arguments.engine,
        dtype=arguments.dtype,
    )
    return places[0] if len(places) == 1 else places[0].parent


def _report_options(parser: Parser) -> None:
    parser.add_argument("runs", type=Path, help="folder of run directories")
    parser.add_argument("--html", type=Path, help="the page to write  [RUNS/report.html]")
    parser.add_argument("--markdown", type=Path, help="the same tables as Markdown  [beside the page]")


def _report(arguments: argparse.Namespace) -> Path:
    from balanced_thinking.report import write_report

    html = arguments.html or arguments.runs / "report.html"
    return write_report(arguments.runs, html, arguments.markdown or html.with_suffix(".md"))


def _study_options(parser: Parser) -> None:
    parser.add_argument("study", type=Path, help="the study, a YAML file such as recipes/world/study.yaml")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, the ledger and the report")
    _run_options(parser)


def _run_options(parser: Parser) -> None:
    parser.add_argument(
        "--jobs", type=positive, help="runs at a time, each on one GPU  [one a GPU, or else a CPU core]"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan, its state and an estimate, and stop")


def _study(arguments: argparse.Namespace) -> Path | None:
    from balanced_thinking.study.plan import load_study

    return _run_study(load_study(arguments.study), arguments)


def _run_study(study: Any, arguments: argparse.Namespace) -> Path | None:
    from balanced_thinking.study.report import write_study_report
    from balanced_thinking.study.run import check_study, describe_plan, run_study

    if arguments.dry_run:
        check_study(study, arguments.out)
        print(describe_plan(study, arguments.out, arguments.jobs))
        return None
    run_study(study, arguments.out, jobs=arguments.jobs)
    return write_study_report(study, arguments.out)


def _demo_options(parser: Parser) -> None:
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the runs and their report")
    parser.add_argument("--seeds", type=int, nargs="+", help="one run of each arm per seed  [the study's]")
    parser.add_argument("--ratio", type=float, help="think tokens for each answer token in the traces  [the study's]")
    parser.add_argument("--steps", type=positive, help="optimizer steps of SFT  [the study's]")
    parser.add_argument("--grpo-steps", type=positive, help="optimizer steps of GRPO  [the study's]")
    parser.add_argument("--n", type=positive, help="samples of each test split  [the study's]")
    _run_options(parser)


def _demo(arguments: argparse.Namespace) -> Path | None:
    from balanced_thinking.demo import demo_study

    study = demo_study(
        seeds=arguments.seeds,
        ratio=arguments.ratio,
        steps=arguments.steps,
        grpo_steps=arguments.grpo_steps,
        samples=arguments.n,
    )
    return _run_study(study, arguments)


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
    "eval": ("Generate, score and keep every sample", _eval_options, _eval, DATA),
    "inspect": ("Say what is in this data and what is wrong with it", inspect_options, inspect, DATA),
    "convert": ("Write a data set as JSON Lines", convert_options, convert, DATA),
    "study": ("Run arms x settings x seeds, what is missing of them, and compare them", _study_options, _study, None),
    "report": ("Write one page that compares runs", _report_options, _report, None),
    "demo": ("Run the embedded study: train all arms, evaluate them, write the report", _demo_options, _demo, None),
}
