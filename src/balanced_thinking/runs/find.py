"""Where runs lie below a folder: `[<setting>/]<arm>/seed-<k>/`, `[<setting>/]<arm>/`, or one run. A model that was only
evaluated is an arm, too: `<model>/eval/`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from balanced_thinking.runs.paths import CONFIG, EVALUATIONS, METRICS, PROVENANCE

TRAINING_FILES = (CONFIG, PROVENANCE, METRICS)
RUN_FILES = (*TRAINING_FILES, EVALUATIONS)
SEED_FOLDER = re.compile(r"seed-(\d+)")
HOW_TO_MAKE_ONE = (
    "`balanced sft --out RUNS/<arm>/seed-<k>` and `balanced eval`, or `balanced demo --out RUNS`, make such a folder"
)


def find_settings(root: Path, named: Sequence[str]) -> list[tuple[str | None, Path]]:
    """(setting, its folder) of every setting that has runs: those a study names, else any folder of arms.

    The setting is None where `root` itself holds the arms.
    """
    there = [(name, root / name) for name in named if find_runs(root / name)]
    if there:
        return list(there)
    if find_runs(root):
        return [(None, root)]
    return [(folder.name, folder) for folder in folders(root) if find_runs(folder)] or [(None, root)]


def find_runs(runs_dir: Path) -> list[tuple[Path, str | None]]:
    """(folder, arm) of every run. The arm is None when `runs_dir` is itself the run: only the run can say it."""
    places: list[tuple[Path, str | None]] = []
    for arm_folder in folders(runs_dir):
        seeds = _seeds(arm_folder)
        here = [arm_folder] if _is_run(arm_folder) else []
        places += [(folder, arm_folder.name) for folder in seeds or here]
    # A study may keep its own configuration beside its arms: the folder itself counts only when nothing below does.
    return places or ([(runs_dir, None)] if _is_run(runs_dir) else [])


def overlooked(runs_dir: Path) -> list[str]:
    """Arms whose own folder was trained in, too, though its seeds alone are read."""
    arms = [arm for arm in folders(runs_dir) if any((arm / name).exists() for name in TRAINING_FILES)]
    return [arm.name for arm in arms if _seeds(arm)]


def _seeds(arm_folder: Path) -> list[Path]:
    return [folder for folder in folders(arm_folder) if SEED_FOLDER.fullmatch(folder.name) and _is_run(folder)]


def folders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))


def nothing_found(runs_dir: Path) -> str:
    if not runs_dir.is_dir():
        found = "it is a file" if runs_dir.exists() else "it does not exist"
    else:
        names = sorted(child.name for child in runs_dir.iterdir())
        found = f"found {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}" if names else "it is empty"
    wanted = "RUNS/<arm>/seed-<k>/ with config.yaml, provenance.json, metrics.jsonl and eval/<data>-<split>/"
    return f"no run in {runs_dir}: {found}; expected {wanted}. {HOW_TO_MAKE_ONE}."


def _is_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in RUN_FILES)
