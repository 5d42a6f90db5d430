"""Which checkpoint a training continues from: the newest that is complete, and never one that was not looked at."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from balanced_thinking.config.errors import RecipeError, UsageError
from balanced_thinking.config.foreign_json import read_json_file
from balanced_thinking.runs.checkpoints import list_checkpoints, list_damaged_checkpoints, set_aside
from balanced_thinking.runs.directory import read_provenance
from balanced_thinking.runs.manifest import Damage, DamagedFilesError, describe_damages
from balanced_thinking.runs.paths import RunFiles
from balanced_thinking.runs.staging import clear_leftovers
from balanced_thinking.system.files import write_atomically
from balanced_thinking.training.inspect_checkpoint import (
    StatePart,
    find_missing_parts,
    inspect_checkpoint,
    needed_parts,
)

logger = logging.getLogger(__name__)


class ResumeError(UsageError, ValueError):
    """There are checkpoints, but none from which the training can continue as it would have."""


class ResumeChoice(NamedTuple):
    """A checkpoint that was verified, and the names of the parts of its state that are not there or not usable."""

    path: str
    missing: tuple[str, ...] = ()


class _Candidate(NamedTuple):
    folder: Path
    damages: list[Damage]
    missing: list[StatePart]

    @property
    def is_complete(self) -> bool:
        return not self.damages and not self.missing

    @property
    def has_weights(self) -> bool:
        """Whether only parts of the state that can be done without are damaged or missing."""
        return all(any(part.holds(damage.file) for part in self.missing) for damage in self.damages)

    def describe(self) -> str:
        faults = [describe_damages(self.damages)] if self.damages else []
        whole = [part.name for part in self.missing if not any(part.holds(d.file) for d in self.damages)]
        faults += [f"it has no state of: {', '.join(whole)}"] if whole else []
        return f"{self.folder.name}: {'; '.join(faults)}"


def choose_checkpoint(
    folder: Path, max_steps: int, needed: Sequence[StatePart] = (), *, allow_partial: bool = False
) -> ResumeChoice | None:
    """The newest complete checkpoint in `folder`; None where there has never been one.

    Newer ones that are damaged are named in the log and renamed to `damaged-checkpoint-N`. What a killed save left is
    removed. Only the process that trains in the folder may call it.

    Args:
        max_steps: of the training; 0 or less where epochs are counted.
        needed: the state that a checkpoint must have.
        allow_partial: take one with complete weights if none is complete; what it lacks is in the choice and the log.

    Raises:
        RecipeError: a checkpoint has more steps than `max_steps`.
        ResumeError: there are checkpoints, but none is complete. Nothing is renamed then.
    """
    clear_leftovers(folder)
    checkpoints = list_checkpoints(folder)
    if checkpoints and 0 < max_steps < (taken := next(iter(checkpoints))):
        raise RecipeError(
            f"{folder.parent} has taken {taken} steps already; max_steps is {max_steps}; expected no fewer"
        )
    passed: list[_Candidate] = []
    for place in checkpoints.values():
        found = _look_at(place, needed)
        if found.is_complete:
            _set_aside_damaged(passed, place)
            return ResumeChoice(str(place))
        passed.append(found)
    if allow_partial and (partial := next((one for one in passed if one.has_weights), None)):
        _set_aside_damaged(passed[: passed.index(partial)], partial.folder)
        for part in partial.missing:
            logger.warning("%s continues without the state of its %s: %s", partial.folder, part.name, part.effect)
        return ResumeChoice(str(partial.folder), tuple(part.name for part in partial.missing))
    if passed or list_damaged_checkpoints(folder):
        raise _none_is_complete(folder, passed)
    return None


def _look_at(place: Path, needed: Sequence[StatePart]) -> _Candidate:
    damages = inspect_checkpoint(place)
    damaged = [part for part in needed if any(part.holds(damage.file) for damage in damages)]
    missing = [part for part in needed if part in damaged or part in find_missing_parts(place, list(needed))]
    return _Candidate(place, damages, missing)


def _set_aside_damaged(passed: Sequence[_Candidate], chosen: Path) -> None:
    for one in passed:
        aside = set_aside(one.folder)
        logger.warning("%s; it is kept as %s, and training continues from %s", one.describe(), aside, chosen.name)


def _none_is_complete(folder: Path, passed: Sequence[_Candidate]) -> ResumeError:
    found = [one.describe() for one in passed]
    found += [f"{place.name}: set aside before" for place in list_damaged_checkpoints(folder)]
    partial = any(one.has_weights for one in passed)
    cure = "add --allow-partial-resume to continue with the complete weights alone; or " if partial else ""
    return ResumeError(
        f"{folder} has no checkpoint from which the training can continue exactly. {'. '.join(found[:5])}. Do one of "
        f"these: {cure}copy a complete checkpoint back into the folder; or start again with another --out"
    )


def verify_checkpoint(folder: str, needed: Sequence[StatePart], *, allow_partial: bool = False) -> ResumeChoice:
    """One checkpoint that a program names. Raises DamagedFilesError or ResumeError where it is not complete."""
    found = _look_at(Path(folder), needed)
    if found.is_complete:
        return ResumeChoice(folder)
    if found.damages and not (allow_partial and found.has_weights):
        raise DamagedFilesError(
            f"{folder} is damaged: {describe_damages(found.damages)}; resume from another checkpoint",
            tuple(found.damages),
        )
    if not allow_partial:
        raise ResumeError(
            f"{found.describe()}; allow_partial_resume (--allow-partial-resume) continues without it, not exactly"
        )
    for part in found.missing:
        logger.warning("%s continues without the state of its %s: %s", folder, part.name, part.effect)
    return ResumeChoice(folder, tuple(part.name for part in found.missing))


def describe_finished(out: Path, args: Any, steps: int) -> str:
    """Why a run has no further step, and which option gives it some."""
    about = read_provenance(out)
    if about is not None and about.stopped_early:
        return f"{out} was ended by early stopping after step {steps}; raise --early_stopping_patience to train further"
    further = "max_steps" if args.max_steps > 0 else "num_train_epochs"
    return f"{out} has taken all its {steps} steps; raise --{further} to train it further"


def choose_state(out: Path, args: Any, allow_partial: bool) -> ResumeChoice | None:
    """`choose_checkpoint` for the run in `out`, whose rows are then those that the checkpoint was trained on."""
    files = RunFiles(out)
    for leftover in clear_leftovers(out):
        logger.info("removed %s, which a stopped process left in %s", leftover, out)
    choice = choose_checkpoint(files.checkpoints, args.max_steps, needed_parts(args), allow_partial=allow_partial)
    if choice is not None:
        _restore_selection(files.preflight, Path(choice.path) / files.preflight.name)
    return choice


def _restore_selection(current: Path, saved: Path) -> None:
    """Put back the choice of rows with which the checkpoint was made, where that of the run was lost or altered."""
    if not saved.is_file() or _read_selection(current) == (before := _read_selection(saved)) or before is None:
        return
    what = "was altered" if current.exists() else "was missing"
    logger.warning("%s %s; it is restored from %s, so that the same rows are trained on", current, what, saved)
    write_atomically(current, saved.read_text(encoding="utf-8"))


def _read_selection(file: Path) -> dict[str, tuple[Any, Any]] | None:
    """Which rows there are and which are left out, by split; None for a file that does not say."""
    try:
        splits = read_json_file(file)
        return {name: (split["ids"], split["left_out"]) for name, split in splits.items()}
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return None
