"""The data and the model that a run has recorded, found from another folder than the one where the run was started."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from balanced_thinking.config.errors import BalancedThinkingError
from balanced_thinking.data.registry import DATASETS
from balanced_thinking.runs.directory import read_provenance


def recorded_place(data: Any, run: Path) -> Any:
    """The `data` or `model` of a run's recipe, with relative paths as they are from here.

    Paths that lead nowhere from the folder where the run was started, or where that is not recorded, stay.
    """
    folder = _find_working_folder(run)
    if folder is None or folder == Path.cwd():
        return data
    return _change_paths(data, lambda path: os.path.relpath(folder / path) if _leads_on(folder, path) else path)


def is_recorded_place(stated: Any, recorded: Any, run: Path) -> bool:
    """Whether `stated`, as seen from here, is the `data` or `model` of a run's recipe: the same names and places.

    A run of an earlier version does not say where it was started: then that may be any folder above it.
    """
    folder = _find_working_folder(run)
    folders = [folder] if folder is not None else [Path.cwd(), *run.absolute().parents]
    here = _change_paths(stated, partial(_absolute, Path.cwd()))
    return any(here == _change_paths(recorded, partial(_absolute, one)) for one in folders)


def _find_working_folder(run: Path) -> Path | None:
    """Where a run was started; None where it does not say so."""
    try:
        about = read_provenance(run)
        return (run.resolve() / about.working_folder).resolve() if about and about.working_folder else None
    except (BalancedThinkingError, OSError, ValueError):  # a record that is damaged or a stranger's
        return None


def _leads_on(folder: Path, path: str) -> bool:
    return not (path.startswith("~") or Path(path).is_absolute()) and (folder / path).exists()


def _absolute(folder: Path, path: str) -> str:
    place = folder / Path(path).expanduser() if path.startswith("~") else folder / path
    return str(place.resolve()) if place.exists() else path


def _change_paths(data: Any, change: Callable[[str], str]) -> Any:
    """`data` as a recipe has it, a name, a path or a list of entries, with other paths."""
    if isinstance(data, str):
        name, colon, path = data.partition(":")
        if name not in DATASETS:
            return change(data)
        return f"{name}{colon}{change(path)}" if path else data
    if isinstance(data, Mapping):
        return {**data, "data": _change_paths(data["data"], change)} if "data" in data else data
    return [_change_paths(entry, change) for entry in data] if isinstance(data, list) else data
