"""The recipe that a run has recorded, and the one with which it is resumed. No torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.layers import Paths
from balanced_thinking.config.yaml import read_yaml_file
from balanced_thinking.data.recorded_places import is_recorded_place, recorded_place
from balanced_thinking.models.find import EMBEDDED
from balanced_thinking.runs.paths import RunFiles
from balanced_thinking.training.default_weights import EARLIER_DEFAULTS, WEIGHTING_OPTIONS
from balanced_thinking.training.launcher import follow_launcher
from balanced_thinking.training.rank_change import keys_that_ranks_divide
from balanced_thinking.training.recipe import HARMLESS_KEYS, Recipe, describe_changes, load_recipe
from balanced_thinking.training.recorded_functions import search_recorded_places

# What may change when a run is resumed, because it does not affect earlier steps. A new number of steps does change the
# schedule and the decay of the learning rate in later steps; the others, which rows are used in them.
RESUME_MAY_CHANGE = HARMLESS_KEYS | {"training.max_steps", "training.num_train_epochs", "training.overflow"}
RESUME_MAY_CHANGE |= {"on_bad_row", "verify_images", "preflight", "ranks"}
RESUME_MAY_CHANGE |= {"training.on_nonfinite", "training.nonfinite_limit"}
RESUME_MAY_CHANGE |= {"training.early_stopping_patience", "training.early_stopping_threshold"}
RESUME_MAY_CHANGE |= {"training.per_device_eval_batch_size", "training.eval_accumulation_steps"}


def load_run_recipe(config: Path, overrides: Sequence[tuple[str, str]] = ()) -> Recipe:
    """The recipe that a run has recorded, with options over it.

    Runs record what weighs their tokens. What one does not record is what earlier versions had by default.
    """
    recipe = load_recipe(config, overrides)  # refuses what is no recipe
    training = read_yaml_file(config).get("training") or {}
    if recipe.stage != "sft" or training.get("weighting") not in (None, "scale"):
        return recipe
    older = [(name, str(value)) for name, value in EARLIER_DEFAULTS.items() if training.get(name) is None]
    return load_recipe(config, [*older, *overrides]) if older else recipe


def _options_of_weights(before: Recipe, now: Recipe) -> Iterator[str]:
    """The options that give a recipe the weights of another, as far as they differ."""
    for name in WEIGHTING_OPTIONS:
        if (own := before.training.get(name)) != now.training.get(name):
            yield f"--{name} {'null' if own is None else own}"


def _name_places_alike(own: Recipe, recipe: Recipe, run: Path, stated: Collection[str]) -> tuple[Recipe, Recipe]:
    """Both recipes with data and model as seen from here. `stated`: those that the second was given now."""
    for key in ("data", "model"):
        before, now = getattr(own, key), getattr(recipe, key)
        place = before if before in EMBEDDED else recorded_place(before, run)
        if key not in stated:
            own, recipe = replace(own, **{key: place}), replace(recipe, **{key: place})
        else:
            same = is_recorded_place(now, before, run)
            own = replace(own, **{key: now if same else place})
    return own, recipe


def _stated_defaults(own: Recipe, recipe: Recipe) -> set[str]:
    """Training arguments that one of the recipes leaves out, and the other gives their default.

    Those of the weights are not among them: recipes fill them in, and their defaults have changed. Nor are those that
    are None by default: what that stands for depends on others.
    """
    from balanced_thinking.training.stages import STAGE_CLASSES  # imports TRL

    known = fields(STAGE_CLASSES[recipe.stage].config)
    defaults = {one.name: one.default for one in known if one.default is not None}
    names = defaults.keys() - set(WEIGHTING_OPTIONS)
    pairs = {name: (own.training.get(name), recipe.training.get(name)) for name in names}
    return {f"training.{name}" for name, pair in pairs.items() if None in pair and defaults[name] in pair}


def resumed_recipe(saved: Path, config: Paths | None, overrides: Sequence[tuple[str, str]]) -> Recipe:
    """The recipe with which a run is resumed: its own or that of `config`, changed by the options of the command line.

    Raises RecipeError where it differs from the run's in a key outside `RESUME_MAY_CHANGE`.
    """
    search_recorded_places(saved.parent)
    recipe = load_recipe(config, overrides) if config else load_run_recipe(saved, overrides)
    recipe = follow_launcher(recipe)
    may_change = RESUME_MAY_CHANGE | keys_that_ranks_divide(RunFiles(saved.parent).checkpoints)
    own = load_run_recipe(saved)
    stated = ("data", "model") if config else dict(overrides)
    own, recipe = _name_places_alike(own, recipe, saved.parent, stated)
    if describe_changes(own, recipe, may_change):
        may_change |= _stated_defaults(own, recipe)
    if changed := describe_changes(own, recipe, may_change):
        given = any(name in WEIGHTING_OPTIONS for name, _ in overrides)
        options = "" if given else " ".join(_options_of_weights(own, recipe))
        hint = f" ({options} where it is only the default that has changed)" if options else ""
        raise RecipeError(
            f"{saved.parent} cannot be resumed with another recipe: {'; '.join(changed[:3])}; undo the change{hint}, "
            "or start a new run with another --out"
        )
    return recipe
