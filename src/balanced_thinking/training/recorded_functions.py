"""Rewards and scorers of the user's own that a run was trained with: which files, and whether they have changed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.own_functions import OwnFunction, describe_changed_functions, is_own_name, search_beside
from balanced_thinking.runs.directory import read_provenance
from balanced_thinking.scoring.scorers import load_own_scorer
from balanced_thinking.training.own_rewards import load_own_reward

logger = logging.getLogger(__name__)
_SCORERS = ("reward_scorer", "validation_scorer")


def list_own_functions(training: Mapping[str, Any]) -> list[OwnFunction]:
    """Those that training arguments name. Raises RecipeError where one cannot be loaded."""
    rewards = [name for name in training.get("rewards") or {} if is_own_name(name)]
    scorers = [name for key in _SCORERS if is_own_name(name := training.get(key))]
    return [*map(load_own_reward, rewards), *map(load_own_scorer, scorers)]


def record_own_functions(training: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Name -> file and SHA-256, for the run's provenance."""
    return {one.name: one.record() for one in list_own_functions(training)}


def search_recorded_places(run: Path) -> None:
    """Also look for modules where the run of this folder found them."""
    for record in _recorded_functions(run).values():
        if isinstance(record, Mapping) and isinstance(file := record.get("file"), str):
            search_beside(Path(file))


def refuse_changed_functions(run: Path, training: Mapping[str, Any], *, allow: bool) -> None:
    """Raises RecipeError where a function's file is not the one that the run was trained with so far.

    With `allow` the change is a line in the log.
    """
    changed = describe_changed_functions(_recorded_functions(run), list_own_functions(training))
    if changed and not allow:
        raise RecipeError(
            f"{run} cannot be resumed with other rewards: {'; '.join(changed)}; restore the file, accept the change "
            "with --allow-changed-rewards, or start a new run with another --out"
        )
    for line in changed:
        logger.warning("%s: rewards are computed with it from now on", line)


def _recorded_functions(run: Path) -> Mapping[str, Any]:
    about = read_provenance(run)
    return {} if about is None else about.own_functions
