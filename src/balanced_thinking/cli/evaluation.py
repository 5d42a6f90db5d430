"""The command `eval`."""

from __future__ import annotations

import argparse
from pathlib import Path

from balanced_thinking.cli.data import OUTSIDE_HELP, add_data_options, read_data_options, read_image_options
from balanced_thinking.cli.output import show_result
from balanced_thinking.cli.parser import Parser, batch_size, shot_count, token_count
from balanced_thinking.data.permissions import permit


def add_engine_options(parser: Parser) -> None:
    """What generates, and how the weights are loaded: the same in every command that asks models."""
    parser.add_argument(
        "--engine", choices=("transformers", "vllm"), default="transformers", help="what generates in this process"
    )
    parser.add_argument(
        "--server", help="an OpenAI-compatible server that serves the model, such as http://localhost:8000/v1"
    )
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="number type of the weights; auto: the checkpoint's own on a GPU, float32 on a CPU",
    )
    parser.add_argument(
        "--quantization",
        metavar="NAME",
        help="nf4 or int8: the language model's layers in 4 or 8 bits; an adapter stays beside them  [dense weights]",
    )
    parser.add_argument(
        "--allow-missing",
        action="append",
        metavar="NAME",
        help="a tensor, or a pattern of names, that the checkpoint may lack; may be repeated",
    )


def add_evaluation_options(parser: Parser) -> None:
    from balanced_thinking.scoring.scorers import SCORERS

    parser.add_argument(
        "--model",
        required=True,
        help="a run directory or its model folder, a checkpoint's folder, world-base, world-reasoner, or a hub name",
    )
    add_engine_options(parser)
    parser.add_argument("--served-model", help="the model's name on the server  [the only one that it lists]")
    parser.add_argument("--data", action="append", help="a data set's name or a path; may be repeated")
    parser.add_argument(
        "--benchmarks",
        type=Path,
        help="a YAML file of data sets with splits, prompt and scorer of their own (docs/evaluation.md); the options "
        "below are its defaults",
    )
    parser.add_argument("--split", default="test", help="split of the data")
    parser.add_argument(
        "--out", type=Path, help="folder of the results  [RUN/eval/<data>-<split>, or runs/<model>/eval/<data>-<split>]"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the results in the folder; what this evaluation had answered before it was stopped is kept",
    )
    parser.add_argument("--allow-outside", action="store_true", help=OUTSIDE_HELP)
    parser.add_argument("--format", help="reasoning format of the outputs  [the run's, else think-answer]")
    parser.add_argument(
        "--prompt",
        default="question",
        help="how questions are asked: question (as in training), instructed, or lmms-<benchmark>",
    )
    parser.add_argument(
        "--shots",
        type=shot_count,
        default=0,
        help="training rows with completions to put before each question, 0: none",
    )
    parser.add_argument(
        "--scorer",
        default="exact",
        help=f"how answers are scored: {', '.join(SCORERS)}, or module:function for your own",
    )
    parser.add_argument("--batch-size", type=batch_size, default=64, help="samples that are generated together")
    parser.add_argument(
        "--max-new-tokens", type=token_count, default=512, help="longest output in tokens; the rest is cut off"
    )
    add_data_options(parser)
    parser.epilog = (
        "Options of the data set follow as --data_options.NAME value, options of the image processor as "
        "--image_options.NAME value (default: those that were saved with the model)."
    )


def run_evaluation(arguments: argparse.Namespace) -> Path | None:
    from balanced_thinking.config.errors import RecipeError
    from balanced_thinking.data.load import stream_data
    from balanced_thinking.evaluation.benchmarks import Benchmark, check_benchmarks, load_benchmarks
    from balanced_thinking.models.find import check_model
    from balanced_thinking.models.quantization import check_quantization

    names = ("limit", "on_bad_row", "batch_size", "max_new_tokens", "prompt", "scorer", "format", "shots")
    shared = {name: getattr(arguments, name) for name in names} | {"splits": (arguments.split,)}
    options = read_data_options(arguments.overrides)
    data = arguments.data or []
    if options and not data:
        raise RecipeError("--data_options belong to --data: a data set of --benchmarks has its own under `options`")
    benchmarks = [Benchmark(name, options=options, **shared) for name in data]
    if arguments.benchmarks:
        benchmarks += load_benchmarks(arguments.benchmarks, **shared)
    if not benchmarks:
        raise RecipeError("there is nothing to evaluate on: name it with --data, or several with --benchmarks")
    # Names are checked before torch is imported, which takes seconds.
    check_quantization(arguments.quantization)
    check_model(arguments.model)
    check_benchmarks(benchmarks, "what to evaluate on")
    for benchmark in benchmarks:
        stream_data(benchmark.name, split=benchmark.splits[0], options=benchmark.options)
    from balanced_thinking.evaluation.engines.start import EngineOptions
    from balanced_thinking.evaluation.run import evaluate_benchmarks

    engine = EngineOptions(
        arguments.engine,
        arguments.server,
        arguments.served_model,
        arguments.dtype,
        tuple(arguments.allow_missing or ()),
        read_image_options(arguments.overrides),
        arguments.quantization,
    )
    with permit(outside=arguments.allow_outside):
        evaluated = evaluate_benchmarks(
            arguments.model,
            benchmarks,
            engine=engine,
            out=arguments.out,
            overwrite=arguments.overwrite,
            announce=show_result,
        )
    folder = evaluated[0].folder
    return folder if len(evaluated) == 1 or folder is None else folder.parent
