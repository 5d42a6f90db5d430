"""The command `chat`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from balanced_thinking.cli.data import read_image_options
from balanced_thinking.cli.evaluation import add_engine_options
from balanced_thinking.cli.output import show_result
from balanced_thinking.cli.parser import Parser, finite_number, integer_between, token_count
from balanced_thinking.config.errors import FileInTheWayError, RecipeError

if TYPE_CHECKING:
    from balanced_thinking.chat.session import ChatOptions

_OUT = Path("runs/chat")
_HOST, _PORT = "127.0.0.1", 7860


def add_chat_options(parser: Parser) -> None:
    from balanced_thinking.scoring.scorers import SCORERS

    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="a run directory or its model folder, a checkpoint's folder, an exported folder, world-base, "
        "world-reasoner, or a hub name; several answer side by side",
    )
    parser.add_argument("--web", action="store_true", help="a page in the browser (install the extra [chat])")
    parser.add_argument("--host", help=f"with --web: the address to listen on  [{_HOST}]")
    parser.add_argument("--port", type=integer_between(0, 65535), help=f"with --web: port; 0: any free one  [{_PORT}]")
    parser.add_argument("--image", action="append", help="a picture file; may be repeated")
    parser.add_argument("--choice", action="append", help="an option of the question; may be repeated")
    parser.add_argument("--answer", help="right answer to the first question; the replies are then scored")
    parser.add_argument(
        "--out", type=Path, default=_OUT, help="folder that answers are appended to; `balanced report` reads it"
    )
    parser.add_argument(
        "--max-new-tokens", type=token_count, default=512, help="longest output in tokens; the rest is cut off"
    )
    parser.add_argument(
        "--temperature", type=finite_number, default=0.0, help="0: greedy, as in eval; above 0: tokens are drawn"
    )
    parser.add_argument("--format", help="reasoning format of the outputs  [the run's or export's, else think-answer]")
    parser.add_argument(
        "--prompt",
        default="question",
        help="how questions are asked: question (as in training), instructed, or lmms-<benchmark>",
    )
    parser.add_argument(
        "--scorer",
        default="exact",
        help=f"how answers are scored: {', '.join(SCORERS)}, or module:function for your own",
    )
    parser.add_argument("--no-think-view", action="store_true", help="hide the reasoning; type /think to show it")
    add_engine_options(parser)
    parser.add_argument(
        "--served-model",
        action="append",
        help="the model's name on the server; once for each MODEL  [the only one that it lists; of several, MODEL]",
    )
    parser.epilog = (
        "Options of the image processor follow as --image_options.NAME value (default: those that were saved with the "
        "model). Standard input that is no terminal is one question: echo 'What color is it?' | balanced chat MODEL "
        "--image x.png"
    )


def run_chat(arguments: argparse.Namespace) -> Path:
    from balanced_thinking.models.find import check_model
    from balanced_thinking.models.quantization import check_quantization
    from balanced_thinking.segments import get_format

    _refuse_options_of_the_other(arguments)
    if arguments.out.exists() and not arguments.out.is_dir():
        raise FileInTheWayError(f"{arguments.out} is a file; expected a folder for --out")
    # Names are checked before torch is imported, which takes seconds.
    check_quantization(arguments.quantization)
    for name in arguments.models:
        check_model(name)
    if arguments.format:
        get_format(arguments.format)
    images = _check_pictures(arguments.image or ())
    piped = None if arguments.web or sys.stdin.isatty() else sys.stdin.read()
    if piped is not None and not piped.strip():
        raise RecipeError(
            "there is no question: standard input is empty and no terminal; expected echo 'What color is it?' | "
            "balanced chat MODEL, or --web"
        )
    if piped is not None and (word := _find_command(piped)):
        raise RecipeError(
            f"all of standard input is one question, and {word} would be a part of it; commands are for a terminal: "
            "here give --image, --choice and --answer"
        )
    return _converse(arguments, images, piped)


def _find_command(text: str) -> str | None:
    """The first word of a line that is a command of the terminal; None without."""
    words = [line.split()[0] for line in text.splitlines() if line.startswith("/")]
    if not words:
        return None
    from balanced_thinking.chat.terminal import COMMANDS

    return next((word for word in words if word in COMMANDS), None)


def _refuse_options_of_the_other(arguments: argparse.Namespace) -> None:
    """Raises RecipeError for options of the page without it, and for those of the terminal with the page."""
    if arguments.web:
        given = {"--image": arguments.image, "--choice": arguments.choice, "--answer": arguments.answer}
        given["--no-think-view"] = arguments.no_think_view
        cure = "the page has its own place for it: leave it out, or leave --web out"
    else:
        given, cure = {"--host": arguments.host, "--port": arguments.port}, "it is the page's: add --web"
    for name, value in given.items():
        if value not in (None, False):
            raise RecipeError(f"{name} {'with' if arguments.web else 'without'} --web: {cure}")
    if ":" in (arguments.host or ""):  # gradio writes it into an address without brackets
        raise RecipeError(f"--host is {arguments.host}; the page has IPv4 addresses and names only: localhost, 0.0.0.0")


def _check_pictures(names: Sequence[str]) -> list[Path]:
    from balanced_thinking.chat.question import QuestionError, check_picture

    try:
        return [check_picture(name) for name in names]
    except QuestionError as error:
        raise RecipeError(f"--image: {error}") from error


def _converse(arguments: argparse.Namespace, images: list[Path], piped: str | None) -> Path:
    if arguments.web:
        from balanced_thinking.chat.web.page import refuse_missing_gradio

        refuse_missing_gradio()
    from balanced_thinking.chat.keep import Keeper
    from balanced_thinking.chat.session import Session, load_models

    options = _read_options(arguments)
    session = Session(load_models(arguments.models, options), options)
    keeper = Keeper(arguments.out, session)
    if arguments.web:
        from balanced_thinking.chat.web.page import serve

        port = _PORT if arguments.port is None else arguments.port
        serve(session, keeper, arguments.host or _HOST, port, show_result)
        return arguments.out
    from balanced_thinking.chat.terminal import Terminal, answer_once

    terminal = Terminal(
        session, keeper, images, tuple(arguments.choice or ()), arguments.answer, not arguments.no_think_view
    )
    if piped is None:
        terminal.run()
    else:
        answer_once(terminal, piped)
    return arguments.out


def _read_options(arguments: argparse.Namespace) -> ChatOptions:
    from balanced_thinking.chat.session import ChatOptions
    from balanced_thinking.evaluation.engines.start import EngineOptions

    return ChatOptions(
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        format=arguments.format,
        prompt=arguments.prompt,
        scorer=arguments.scorer,
        engine=EngineOptions(
            name=arguments.engine,
            server=arguments.server,
            dtype=arguments.dtype,
            allow_missing=tuple(arguments.allow_missing or ()),
            image_options=read_image_options(arguments.overrides),
            quantization=arguments.quantization,
        ),
        served_models=tuple(arguments.served_model or ()),
    )
