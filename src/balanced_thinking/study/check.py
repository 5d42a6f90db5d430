"""Finds what would make a run of a study fail, before the first run starts: refused settings and missing data.

Parts that are done are not checked again.

    python -m balanced_thinking.study.check STUDY_FOLDER < study.yaml          the faults as JSON
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.foreign_json import parse_json
from balanced_thinking.config.yaml import read_yaml
from balanced_thinking.data.load import check_first_row, choose_read_format
from balanced_thinking.data.mixture import DataNames, validation_data
from balanced_thinking.runs.directory import is_finished
from balanced_thinking.runs.paths import RunFiles
from balanced_thinking.segments import get_format
from balanced_thinking.study.load import make_study, to_yaml
from balanced_thinking.study.plan import PlannedRun, Study
from balanced_thinking.study.worker import missing_parts
from balanced_thinking.system.text import list_some
from balanced_thinking.training.recipe import Recipe

_MAX_TITLES = 3  # arms or nodes named with a fault that more of them share
# What our code and the libraries raise for arguments and data that cannot be used.
_FAULTS = (ValueError, TypeError, OSError, ImportError, RuntimeError)


def check_runs(study: Study, root: Path) -> None:
    """Raises RecipeError with every fault of the parts that are not done yet."""
    # Creating training arguments occupies GPU memory, which the runs need. So another process does it.
    gpus = visible_gpus()
    found = _find_faults_in_subprocess(study, root, gpus[0]) if gpus else find_faults(study, root)
    if found:
        raise RecipeError("\n  ".join(["some of its runs would fail:", *found]))


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, named as in CUDA_VISIBLE_DEVICES."""
    import torch

    if not torch.cuda.is_available():
        return []
    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] or [str(index) for index in range(count)]


def _find_faults_in_subprocess(study: Study, root: Path, gpu: str) -> list[str]:
    """`find_faults` as a run would see it: in a process that sees one GPU."""
    command = [sys.executable, "-m", "balanced_thinking.study.check", str(root)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": gpu}
    done = subprocess.run(command, input=to_yaml(study), env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return parse_json(done.stdout.splitlines()[-1])


def find_faults(study: Study, root: Path) -> list[str]:
    """Every fault once, after the arms that have it."""
    finder = _FaultFinder()
    return merge_faults((run.title, fault) for run in study.planned_runs() for fault in finder.faults_of_run(run, root))


def merge_faults(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Every fault once, after the titles of what has it. `pairs` are (title, fault)."""
    found: dict[str, list[str]] = {}
    for title, fault in pairs:
        found.setdefault(fault, []).append(title)
    return [f"{list_some(list(dict.fromkeys(titles)), _MAX_TITLES)}: {fault}" for fault, titles in found.items()]


def _missing_model_faults(run: PlannedRun, parts: Sequence[str], root: Path) -> Iterator[str]:
    """What needs the model of a finished run that has none, as in a folder that was restored from an archive."""
    needed = run.after if "train" in parts else run.name if parts else None
    if needed is not None and is_finished(root / needed) and not RunFiles(root / needed).model.is_dir():
        yield (
            f"{', '.join(parts)} of {run.name} needs the model of {needed}, which has finished but has no "
            f"{RunFiles(root / needed).model}: results are archived without weights; delete {root / needed} to train "
            "it again"
        )


class _FaultFinder:
    """Checks each piece of data once."""

    def __init__(self) -> None:
        self._seen: dict[str, str | None] = {}

    def faults_of_run(self, run: PlannedRun, root: Path) -> Iterator[str]:
        trained = run.recipe.training.get("reasoning_format")
        parts = missing_parts(root, run)
        yield from _missing_model_faults(run, parts, root)
        for part in parts:
            if part == "train":
                yield from self._training_faults(run.recipe, root / run.name, choose_read_format(trained))
            else:
                one, split = run.evaluations[part]
                format = choose_read_format(one.format or trained)  # as the evaluation will read them
                how = {"format": format, "on_bad_row": one.on_bad_row, "limit": one.limit}
                yield from self._data_faults(f"evaluate.{one.data}", one.name, split, one.options, how)

    def _training_faults(self, recipe: Recipe, folder: Path, format: Any) -> Iterator[str]:
        from balanced_thinking.training.rank_change import refuse_other_ranks
        from balanced_thinking.training.stages import training_arguments

        try:
            refuse_other_ranks(recipe.ranks, 1)  # each run is one process
            get_format(training_arguments(recipe, folder).reasoning_format)
        except _FAULTS as error:
            yield str(error)
        how = {"format": format, "on_bad_row": recipe.on_bad_row, "limit": recipe.limit}
        yield from self._data_faults("data", recipe.data, recipe.split, recipe.data_options, how)
        if recipe.validation_split:
            data, split = validation_data(recipe.data), recipe.validation_split
            yield from self._data_faults("data", data, split, recipe.validation_options, how)

    def _data_faults(
        self, where: str, data: DataNames, split: str, options: Mapping[str, Any], how: dict[str, Any]
    ) -> Iterator[str]:
        key = repr((where, data, split, options, how))
        if key not in self._seen:
            self._seen[key] = None
            try:
                check_first_row(data, split, options, **how)
            except _FAULTS as error:
                self._seen[key] = f"{where}: {error}"
        if (fault := self._seen[key]) is not None:
            yield fault


def main() -> int:
    study = make_study(read_yaml(sys.stdin.read(), "the study"))
    sys.stdout.write(json.dumps(find_faults(study, Path(sys.argv[1]))) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
