"""Finds runs below a folder: `[<setting>/]<arm>/seed-<k>/`, `[<setting>/]<arm>/`, or the folder itself.

A model that was only evaluated is an arm, too: `<model>/eval/`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from balanced_thinking.runs.paths import CONFIG, EVALUATIONS, METRICS, PROVENANCE
from balanced_thinking.system.files import is_folder

TRAINING_FILES = (CONFIG, PROVENANCE, METRICS)
RUN_FILES = (*TRAINING_FILES, EVALUATIONS)
SEED_FOLDER = re.compile(r"seed-(\d+)")
_LONGEST_NAME = 256  # characters that a file system takes
HOW_TO_MAKE_ONE = (
    "`balanced sft --out RUNS/<arm>/seed-<k>` and `balanced eval`, or `balanced demo --out RUNS`, make such a folder"
)


class SettingFolder(NamedTuple):
    """The folder of a setting. `name` is None where the folder itself is the study's."""

    name: str | None
    folder: Path


class RunFolder(NamedTuple):
    """The folder of a run. `arm` is None where only the run itself can name its arm."""

    folder: Path
    arm: str | None


def find_settings(root: Path, named: Sequence[str]) -> list[SettingFolder]:
    """Every setting that has runs: those a study names, or else every folder of arms, or else `root`."""
    inside = [name for name in named if name == Path(name).name and len(name) < _LONGEST_NAME]  # not ../elsewhere
    present = [SettingFolder(name, root / name) for name in inside if find_runs(root / name)]
    if present:
        return present
    whole = [SettingFolder(None, root)]
    if find_runs(root):
        return whole
    return [SettingFolder(folder.name, folder) for folder in list_folders(root) if find_runs(folder)] or whole


def find_runs(runs_dir: Path) -> list[RunFolder]:
    """Every run of a study or setting; `runs_dir` itself where it is a run and holds no others."""
    found: list[RunFolder] = []
    for arm_folder in list_folders(runs_dir):
        seeds = _seed_folders(arm_folder)
        here = [arm_folder] if _is_run(arm_folder) else []
        found += [RunFolder(folder, arm_folder.name) for folder in seeds or here]
    # A study may have its own config.yaml beside its arms. So the folder counts as a run only without runs below it.
    return found or ([RunFolder(runs_dir, None)] if _is_run(runs_dir) else [])


def find_arms_with_own_run(runs_dir: Path) -> list[str]:
    """Arms whose own folder holds a run besides its seeds. Only the seeds are read."""
    arms = [arm for arm in list_folders(runs_dir) if any((arm / name).exists() for name in TRAINING_FILES)]
    return [arm.name for arm in arms if _seed_folders(arm)]


def _seed_folders(arm_folder: Path) -> list[Path]:
    return [folder for folder in list_folders(arm_folder) if SEED_FOLDER.fullmatch(folder.name) and _is_run(folder)]


def list_folders(path: Path) -> list[Path]:
    """The folders in a folder, sorted; circular links are left out."""
    if not path.is_dir():
        return []
    with os.scandir(path) as entries:  # which knows without a question to the disk what most entries are
        names = [entry.name for entry in entries if not entry.name.startswith(".") and is_folder(entry)]
    return [path / name for name in sorted(names)]


def explain_missing_runs(runs_dir: Path) -> str:
    if not runs_dir.is_dir():
        found = "it is a file" if runs_dir.exists() else "it does not exist"
    else:
        names = sorted(child.name for child in runs_dir.iterdir())
        found = f"found {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}" if names else "it is empty"
    wanted = "RUNS/<arm>/seed-<k>/ with config.yaml, provenance.json, metrics.jsonl and eval/<data>-<split>/"
    return f"no run in {runs_dir}: {found}; expected {wanted}. {HOW_TO_MAKE_ONE}."


def _is_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in RUN_FILES)
