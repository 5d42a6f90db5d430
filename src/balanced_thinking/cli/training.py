"""The commands that train: `sft` and `grpo`."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balanced_thinking.cli.output import show_result
from balanced_thinking.cli.parser import HelpSection, Parser
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.names import did_you_mean
from balanced_thinking.config.types import admitted_types, as_plain_yaml
from balanced_thinking.runs.directory import hold_run, refuse_existing_run
from balanced_thinking.runs.paths import RunFiles

if TYPE_CHECKING:
    from balanced_thinking.training.recipe import Recipe

logger = logging.getLogger(__name__)


def add_training_options(parser: Parser, stage: str) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        action="append",
        help="the recipe, a YAML file; given again, later files override its keys, and options override all",
    )
    parser.add_argument("--out", type=Path, help=f"run directory  [runs/<name of the recipe>, or runs/{stage}]")
    parser.add_argument("--resume", action="store_true", help="continue the run from its last complete checkpoint")
    parser.add_argument(
        "--allow-partial-resume",
        action="store_true",
        help="with --resume: continue from complete weights where the optimizer's or other state is lost; not exact",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check settings and rows, print the plan (model, data, lengths, steps, weights), and start nothing",
    )
    parser.add_argument(
        "--allow-changed-rewards",
        action="store_true",
        help="with --resume: continue although the file of an own reward or scorer has changed; not exact",
    )
    parser.epilog = (
        "--config or --model is needed. The keys of a recipe, the training arguments below and all others of TRL's "
        f"{stage.upper()}Config (--learning_rate, --max_steps ...) follow as --name value; --help-all shows them. "
        "A list is written '[a, b]' or a,b; a key of a mapping --name.key value. --data may be repeated."
    )
    parser.more_help = partial(_own_sections, stage)
    parser.add_help_all(partial(_upstream_sections, stage), "show this help and all of TRL's training arguments")


def _own_sections(stage: str) -> list[HelpSection]:
    """The keys of a recipe, the training arguments that are ours, and those of TRL's whose default is ours."""
    from balanced_thinking.training.arguments import OPTIONS
    from balanced_thinking.training.options import DEFAULTS, DEFAULTS_HELP
    from balanced_thinking.training.recipe import Recipe

    keys = _describe_fields(Recipe, but=("stage", "training"))
    ours = _describe_fields(OPTIONS[stage])
    ours |= {name: _describe_option(DEFAULTS[name], text) for name, text in DEFAULTS_HELP.items()}
    title = f"training arguments with their defaults, beside those of TRL's {stage.upper()}Config"
    return [HelpSection("keys of a recipe with their defaults", keys), HelpSection(title, ours)]


def _upstream_sections(stage: str) -> list[HelpSection]:
    """The training arguments of TRL and transformers, which are imported for it."""
    from transformers import TrainingArguments

    from balanced_thinking.training.arguments import OPTIONS
    from balanced_thinking.training.options import DEFAULTS_HELP
    from balanced_thinking.training.stages import STAGE_CLASSES

    shown = {*(f.name for f in fields(OPTIONS[stage])), *DEFAULTS_HELP, "output_dir"}
    found = [f for f in fields(STAGE_CLASSES[stage].config) if f.init and f.name not in shown]
    about = {f.name: _describe_option(f.default, f.metadata.get("help", "")) for f in found}
    of_transformers = {f.name for f in fields(TrainingArguments)}
    parts = {"TRL": about.keys() - of_transformers, "transformers": about.keys() & of_transformers}
    return [
        HelpSection(
            f"training arguments of {owner} with their defaults",
            {name: text for name, text in about.items() if name in names},
        )
        for owner, names in parts.items()
    ]


def _describe_option(default: Any, text: str) -> dict[str, str]:
    """An option as argparse takes it, with its default in the place of a value's name."""
    return {
        "metavar": "" if default is MISSING else as_plain_yaml(default),
        "help": text.replace("%%", "%").replace("%", "%%"),
    }


def _describe_fields(schema: type, but: Collection[str] = ()) -> dict[str, dict[str, str]]:
    """The fields of a dataclass as options, its own before inherited ones; those that hold a mapping as NAME VALUE."""
    shown = [f for f in fields(schema) if f.name not in but]
    shown.sort(key=lambda f: f.name not in schema.__annotations__)
    types = admitted_types(schema)
    mappings = {f.name for f in shown if dict in types[f.name] and not isinstance(f.default, str)}
    return {
        f"{f.name}.NAME" if f.name in mappings else f.name: _describe_option(
            "VALUE" if f.name in mappings else f.default, f.metadata["help"]
        )
        for f in shown
    }


def refuse_unknown_names(overrides: Sequence[tuple[str, str]], options: Sequence[str], stage: str) -> None:
    """Raises RecipeError for a name that is no option, no key of a recipe and no training argument."""
    from balanced_thinking.training.arguments import SYNONYMS, argument_types
    from balanced_thinking.training.recipe import Recipe

    arguments, keys = argument_types(stage).keys() - {"output_dir"}, {f.name for f in fields(Recipe)}
    known = [*options, *(f"--{name}" for name in sorted(keys | arguments))]
    meant = {f"--{name}": f"--{other}" for name, other in SYNONYMS.items()}
    for name, _ in overrides:
        head, dot, key = name.partition(".")
        if head not in keys and head not in arguments:
            candidates = [option + dot + key for option in known]
            hint = did_you_mean(f"--{name}", candidates, {} if dot else meant)
            raise RecipeError(f"unknown option --{name}{hint}; see balanced {stage} --help, or --help-all")


def _join_data_sets(overrides: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The options with those of a repeated --data as one, a list of data sets, in the place of the first."""
    data = list(dict.fromkeys(value for name, value in overrides if name == "data"))
    if len(data) < 2:
        return list(overrides)
    from balanced_thinking.config.yaml import read_yaml

    joined = json.dumps([read_yaml(value, f"--data {value}") for value in data])
    first = next(place for place, (name, _) in enumerate(overrides) if name == "data")
    return [
        ("data", joined) if name == "data" else (name, value)
        for place, (name, value) in enumerate(overrides)
        if name != "data" or place == first
    ]


def _refuse_no_model(arguments: argparse.Namespace, stage: str, resumed: bool) -> None:
    """Raises RecipeError where nothing says what is to be trained."""
    if resumed or arguments.config is not None or any(name == "model" for name, _ in arguments.overrides):
        return
    if arguments.resume:
        raise RecipeError(f"there is no run in {arguments.out} to resume; name its folder with --out")
    raise RecipeError(
        f"there is nothing to train; name a recipe with --config, or a model with --model (world-base and "
        f"world-reasoner are embedded); see balanced {stage} --help"
    )


def run_training(arguments: argparse.Namespace) -> Path | None:
    from balanced_thinking.training.checks import check_places, check_settings

    stage = arguments.command
    refuse_unknown_names(arguments.overrides, arguments.options, stage)
    arguments.overrides = _join_data_sets(arguments.overrides)
    out = arguments.out or Path("runs") / (arguments.config[0].stem if arguments.config else stage)
    arguments.out = out
    if arguments.dry_run:
        _show_plan(arguments, stage)
        return None
    with ExitStack() as stack:
        if resumed := arguments.resume and RunFiles(out).config.is_file():
            stack.enter_context(hold_run(out))  # before its recipe is read
        recipe = _read_recipe(arguments, stage, resumed)
        # Whatever can be known without torch is known before torch is imported, which takes seconds.
        check_settings(recipe)
        refuse_existing_run(out, resume=arguments.resume)
        stack.enter_context(hold_run(out))
        check_places(recipe)
        if arguments.resume and not resumed:
            logger.info("there is no run in %s yet; training starts from the beginning", out)
        from balanced_thinking.training.run import train

        return train(
            recipe,
            out,
            resume=arguments.resume,
            allow_partial_resume=arguments.allow_partial_resume,
            allow_changed_rewards=arguments.allow_changed_rewards,
        )


def _show_plan(arguments: argparse.Namespace, stage: str) -> None:
    """Print what the training would do. Raises what it would raise before its first step."""
    from balanced_thinking.training.checks import check_places, check_settings

    if arguments.resume:
        raise RecipeError("--dry-run shows how a run would start, and --resume continues one; leave one of them out")
    recipe = _read_recipe(arguments, stage, resumed=False)
    check_settings(recipe)
    refuse_existing_run(arguments.out, resume=False)
    check_places(recipe)
    from balanced_thinking.training.dry_run import describe_training

    show_result(describe_training(recipe, arguments.out))


def _read_recipe(arguments: argparse.Namespace, stage: str, resumed: bool) -> Recipe:
    """The recipe of the options, or of the run that is resumed. Raises RecipeError where it is of the other stage."""
    from balanced_thinking.training.recipe import load_recipe
    from balanced_thinking.training.run_recipe import resumed_recipe

    _refuse_no_model(arguments, stage, resumed)
    if resumed:
        recipe = resumed_recipe(RunFiles(arguments.out).config, arguments.config, arguments.overrides)
    else:
        recipe = load_recipe(arguments.config, arguments.overrides, default_stage=stage)
    if recipe.stage != stage:
        raise RecipeError(f"the recipe's stage is {recipe.stage!r}; run it with `balanced {recipe.stage}`")
    return recipe
