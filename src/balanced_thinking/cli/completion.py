"""Shell completion: a script that the shell reads once, made by shtab from the parsers and the training arguments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")


class PrintCompletion(argparse.Action):
    """`--print-completion SHELL`."""

    def __call__(self, parser: argparse.ArgumentParser, _: Any, shell: Any, *__: Any) -> None:
        sys.stdout.write(completion_script(str(shell)))
        parser.exit(0)


def completion_script(shell: str) -> str:
    """What completes commands, options, the keys of recipes and the training arguments in this shell."""
    import shtab

    from balanced_thinking.cli.commands import make_parsers
    from balanced_thinking.config.types import admitted_types
    from balanced_thinking.training.arguments import argument_types
    from balanced_thinking.training.recipe import STAGES, Recipe

    parser, parsers = make_parsers()
    keys = {f.name: admitted_types(Recipe)[f.name] for f in fields(Recipe) if f.name not in ("stage", "training")}
    for stage in STAGES:
        arguments = {name: types for name, types in argument_types(stage).items() if name != "output_dir"}
        _add_free_options(parsers[stage], keys | arguments)
    for command in parsers.values():
        for action in command._actions:
            if action.type is Path:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    return f"{shtab.complete(parser, shell)}\n"


def _add_free_options(parser: argparse.ArgumentParser, types: Mapping[str, set[Any]]) -> None:
    """The options that are not argparse's own, with their choices."""
    from balanced_thinking.config.types import Choices

    for name, kinds in types.items():
        choices = [str(one) for kind in kinds if isinstance(kind, Choices) for one in kind.values]
        parser.add_argument(f"--{name}", choices=choices or (["true", "false"] if kinds == {bool} else None), help="")
