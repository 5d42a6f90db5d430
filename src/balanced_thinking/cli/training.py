"""The commands that train: `sft` and `grpo`."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import Any

from balanced_thinking.cli.parser import Parser
from balanced_thinking.config.names import did_you_mean
from balanced_thinking.runs.directory import discard_failed_start
from balanced_thinking.runs.paths import RunFiles

logger = logging.getLogger(__name__)
# Training arguments of TRL's whose default is the command's own.
_OURS = {
    "report_to": "Where metrics.jsonl goes, too: tensorboard, trackio, wandb ...",
    "logging_steps": "Optimizer steps between two rows of metrics.jsonl.",
    "save_total_limit": "Checkpoints that are kept.",
}


def add_training_options(parser: Parser, stage: str) -> None:
    parser.add_argument("--config", type=Path, help="the recipe, a YAML file; options override its keys")
    parser.add_argument("--out", type=Path, help=f"run directory  [runs/<name of the recipe>, or runs/{stage}]")
    parser.add_argument("--resume", action="store_true", help="continue the run from its last checkpoint")
    parser.epilog = (
        "The keys of a recipe and the training arguments below, and any other of TRL's "
        f"{stage.upper()}Config (--learning_rate, --max_steps ...), may follow as --name value."
    )
    parser.more_help = partial(_training_help, stage)


def _training_help(stage: str) -> list[tuple[str, dict[str, dict[str, Any]]]]:
    """The keys of a recipe, the training arguments that are ours, and those of TRL's whose default is ours."""
    from balanced_thinking.training.recipe import Recipe
    from balanced_thinking.training.run import DEFAULTS, STAGE_CLASSES

    config = STAGE_CLASSES[stage][0]
    by_name = {f.name: f for f in fields(config)}
    own = [by_name[name] for name in config.__annotations__]
    keys = dict(_key_help(f) for f in fields(Recipe) if f.name not in ("stage", "training"))
    about = {f.name: {"metavar": _as_yaml(f.default), "help": f.metadata["help"].replace("%", "%%")} for f in own}
    about |= {
        name: {"metavar": _as_yaml(value), "help": _OURS[name]} for name, value in DEFAULTS.items() if name in _OURS
    }
    title = f"training arguments with their defaults, beside those of TRL's {stage.upper()}Config"
    return [("keys of a recipe with their defaults", keys), (title, about)]


def _key_help(key: Any) -> tuple[str, dict[str, Any]]:
    of_mapping = key.default is MISSING or key.name == "lora"
    shown = ("NAME", "VALUE") if of_mapping else ("", _as_yaml(key.default))
    return ".".join(filter(None, (key.name, shown[0]))), {"metavar": shown[1], "help": key.metadata["help"]}


def _as_yaml(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _refuse_misspelt(overrides: Sequence[tuple[str, str]], options: Sequence[str], stage: str) -> None:
    """Raises RecipeError for a name that is no option, no key of a recipe and no training argument."""
    from balanced_thinking.config.errors import RecipeError
    from balanced_thinking.training.recipe import Recipe

    keys = {f.name for f in fields(Recipe)}
    unknown = [name for name, _ in overrides if name.partition(".")[0] not in keys]
    if not unknown:
        return
    from balanced_thinking.training.run import STAGE_CLASSES

    arguments = {f.name for f in fields(STAGE_CLASSES[stage][0]) if f.init and f.name != "output_dir"}
    known = [*options, *(f"--{name}" for name in sorted(keys | arguments))]
    for name in unknown:
        if name not in arguments and name != "output_dir":
            _, dot, rest = name.partition(".")
            candidates = [option + dot + rest for option in known]
            raise RecipeError(
                f"unknown option --{name}{did_you_mean(f'--{name}', candidates)}; see balanced {stage} --help"
            )


def _refuse_several(overrides: Sequence[tuple[str, str]]) -> None:
    """Raises RecipeError where --data is given again: the last one would win silently, though `eval` takes several."""
    from balanced_thinking.config.errors import RecipeError

    data = [value for name, value in overrides if name == "data"]
    if len(set(data)) > 1:
        told = ", ".join(data)
        raise RecipeError(f"--data is given {len(data)} times ({told}); a run has one data set: join the files")


def _start_anew(out: Path, arguments: argparse.Namespace) -> None:
    """Say that there is nothing to resume. Raises RecipeError where nothing says what would be trained instead."""
    from balanced_thinking.config.errors import RecipeError

    if arguments.config is None and not {"model", "data"} & {name for name, _ in arguments.overrides}:
        raise RecipeError(f"there is no run in {out} to resume; name its folder with --out")
    logger.info("there is no run in %s yet: it starts from the beginning", out)


def run_training(arguments: argparse.Namespace) -> Path:
    from balanced_thinking.config.errors import RecipeError
    from balanced_thinking.training.recipe import load_recipe, resumed_recipe
    from balanced_thinking.training.run import train as take

    stage = arguments.command
    _refuse_misspelt(arguments.overrides, arguments.options, stage)
    _refuse_several(arguments.overrides)
    out = arguments.out or Path("runs") / (arguments.config.stem if arguments.config else stage)
    saved = RunFiles(out).config
    if arguments.resume and saved.is_file():
        recipe = resumed_recipe(saved, arguments.config, arguments.overrides)
    else:
        if arguments.resume:
            _start_anew(out, arguments)
        recipe = load_recipe(
            arguments.config, arguments.overrides if arguments.config else [("stage", stage), *arguments.overrides]
        )
    if recipe.stage != stage:
        raise RecipeError(f"the recipe's stage is {recipe.stage!r}; run it with `balanced {recipe.stage}`")
    fresh = not saved.is_file()
    try:
        return take(recipe, out, resume=arguments.resume)
    except Exception:  # whatever failed, and it is told; Ctrl-C is no failure: --resume goes on
        if fresh:
            discard_failed_start(out)
        raise
