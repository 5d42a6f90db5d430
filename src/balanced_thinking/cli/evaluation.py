"""The command `eval`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balanced_thinking.cli.data import OUTSIDE_HELP, add_data_options, read_data_options, read_image_options
from balanced_thinking.cli.output import show_result
from balanced_thinking.cli.parser import (
    Parser,
    batch_size,
    finite_number,
    integer_between,
    seed_number,
    shot_count,
    token_count,
)
from balanced_thinking.data.permissions import permit

if TYPE_CHECKING:
    from balanced_thinking.evaluation.benchmarks import Benchmark
    from balanced_thinking.evaluation.engines.start import EngineOptions


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
        help="a run directory or its model folder, a checkpoint's folder, world-base, world-reasoner, or a hub name",
    )
    parser.add_argument(
        "--config",
        type=Path,
        action="append",
        help="the evaluation, a YAML file; given again, later files override its keys, and options override all",
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
        help="replace finished results; this evaluation's answers so far are kept, those of another are deleted",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="read and check the data, print the plan, and answer nothing"
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
        help="rows of the split train to show with their completions before each question; 0: none",
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
    parser.add_argument(
        "--temperature", type=finite_number, default=0.0, help="0: greedy; above 0: tokens are drawn at random"
    )
    parser.add_argument(
        "--top-p", type=finite_number, default=1.0, help="draw from the tokens with this share of probability; 1: all"
    )
    parser.add_argument(
        "--top-k", type=integer_between(0, 10**7), default=0, help="draw from so many tokens only; 0: all"
    )
    parser.add_argument("--sampling-seed", type=seed_number, default=0, help="seed of the draws, for each item")
    add_data_options(parser)
    parser.epilog = (
        "--model, or --config with a model, is needed. Options of the data set follow as --data_options.NAME value, "
        "options of the image processor as --image_options.NAME value (default: those that were saved with the model)."
    )


def run_evaluation(arguments: argparse.Namespace) -> Path | None:
    from balanced_thinking.data.load import stream_data
    from balanced_thinking.evaluation.benchmarks import check_benchmarks
    from balanced_thinking.models.find import check_model
    from balanced_thinking.models.quantization import check_quantization

    evaluate, image_options = _apply_recipe(arguments)
    benchmarks = _read_benchmarks(arguments, evaluate)
    # Names are checked before torch is imported, which takes seconds.
    check_quantization(arguments.quantization)
    check_model(arguments.model)
    check_benchmarks(benchmarks, "what to evaluate on")
    for benchmark in benchmarks:
        stream_data(benchmark.name, split=benchmark.splits[0], options=benchmark.options)
    from balanced_thinking.evaluation.engines.start import EngineOptions

    engine = EngineOptions(
        name=arguments.engine,
        server=arguments.server,
        served_model=arguments.served_model,
        dtype=arguments.dtype,
        allow_missing=tuple(arguments.allow_missing or ()),
        image_options=image_options | read_image_options(arguments.overrides),
        quantization=arguments.quantization,
    )
    with permit(outside=arguments.allow_outside):
        return _evaluate_or_plan(arguments, benchmarks, engine)


def _evaluate_or_plan(arguments: argparse.Namespace, benchmarks: list[Benchmark], engine: EngineOptions) -> Path | None:
    where: dict[str, Any] = {"engine": engine, "out": arguments.out, "overwrite": arguments.overwrite}
    if arguments.dry_run:
        from balanced_thinking.evaluation.dry_run import describe_evaluation

        show_result(describe_evaluation(arguments.model, benchmarks, **where))
        return None
    from balanced_thinking.evaluation.run import evaluate_benchmarks

    evaluated = evaluate_benchmarks(arguments.model, benchmarks, **where, announce=show_result)
    folder = evaluated[0].folder
    return folder if len(evaluated) == 1 or folder is None else folder.parent


def _apply_recipe(arguments: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give the options that the command line leaves out the values of --config; its `evaluate` and `image_options`.

    Raises RecipeError where nothing names a model.
    """
    from balanced_thinking.config.errors import RecipeError
    from balanced_thinking.evaluation.recipe import read_evaluation_recipe

    values = read_evaluation_recipe(arguments.config) if arguments.config else {}
    evaluate, image_options = values.pop("evaluate", {}), values.pop("image_options", {})
    for name, value in values.items():
        if name not in arguments.given:
            setattr(arguments, name, value)
    if arguments.model is None:
        raise RecipeError(
            "there is no model to evaluate; name it with --model (world-base and world-reasoner are embedded), or in a "
            "file with --config"
        )
    return evaluate, image_options


def _read_benchmarks(arguments: argparse.Namespace, evaluate: dict[str, Any]) -> list[Benchmark]:
    """What is evaluated on: --data and --benchmarks, or else `evaluate` of --config. Raises RecipeError for nothing."""
    from balanced_thinking.config.errors import RecipeError
    from balanced_thinking.evaluation.benchmarks import Benchmark, load_benchmarks, read_benchmarks

    asked = ("limit", "on_bad_row", "batch_size", "max_new_tokens", "prompt", "scorer", "format", "shots")
    names = (*asked, "temperature", "top_p", "top_k", "sampling_seed")
    shared = {name: getattr(arguments, name) for name in names} | {"splits": (arguments.split,)}
    options = read_data_options(arguments.overrides)
    data = arguments.data or []
    if options and not data:
        raise RecipeError("--data_options belong to --data: a data set of --benchmarks has its own under `options`")
    benchmarks = [Benchmark(name, options=options, **shared) for name in data]
    if arguments.benchmarks:
        benchmarks += load_benchmarks(arguments.benchmarks, **shared)
    benchmarks = benchmarks or list(read_benchmarks(evaluate, **shared))
    if not benchmarks:
        raise RecipeError(
            "there is nothing to evaluate on: name it with --data, several with --benchmarks, or a recipe with --config"
        )
    return benchmarks
