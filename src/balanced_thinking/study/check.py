"""What would make a run of a study fail, found before the first one starts: settings that a training refuses, and data
that is not there. What is done already is not looked at.

    python -m balanced_thinking.study.check STUDY_FOLDER < study.yaml          the faults as JSON
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.yaml import read_yaml
from balanced_thinking.data.load import check_first_row, completion_format
from balanced_thinking.segments import get_format
from balanced_thinking.study.plan import Node, Study, make_study, to_yaml
from balanced_thinking.study.worker import missing
from balanced_thinking.training.recipe import Recipe

_NAMED = 3  # arms, where a fault is that of many
# What arguments and data that cannot be used raise, in our own code and in that of the libraries.
_FAULTS = (ValueError, TypeError, OSError, ImportError, RuntimeError)


def check_runs(study: Study, root: Path) -> None:
    """Raises RecipeError with all faults of what is still to be done."""
    # Settling a training's arguments takes hold of the GPU, which is the runs' own: so another process does it.
    gpus = visible_gpus()
    found = _asked_aside(study, root, gpus[0]) if gpus else faults(study, root)
    if found:
        raise RecipeError("\n  ".join(["some of its runs would fail:", *found]))


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES calls them."""
    import torch

    if not torch.cuda.is_available():
        return []
    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] or [str(index) for index in range(count)]


def _asked_aside(study: Study, root: Path, gpu: str) -> list[str]:
    """As a run would find it, which sees one GPU."""
    command = [sys.executable, "-m", "balanced_thinking.study.check", str(root)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": gpu}
    done = subprocess.run(command, input=to_yaml(study), env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def faults(study: Study, root: Path) -> list[str]:
    """Every fault once, with the arms that have it."""
    check, found = _Check(), dict[str, list[str]]()
    for node in study.nodes():
        for fault in check.of(node, root):
            found.setdefault(fault, []).append(node.title)
    return [f"{_named(list(dict.fromkeys(titles)))}: {fault}" for fault, titles in found.items()]


def _named(titles: list[str]) -> str:
    more = f" and {len(titles) - _NAMED} more" if len(titles) > _NAMED else ""
    return f"{', '.join(titles[:_NAMED])}{more}"


class _Check:
    """Looks at each piece of data once."""

    def __init__(self) -> None:
        self._seen: dict[str, str | None] = {}

    def of(self, node: Node, root: Path) -> Iterator[str]:
        format = completion_format(node.recipe.training.get("reasoning_format"))
        for part in missing(root, node):
            if part == "train":
                yield from self._training(node.recipe, root / node.name, format)
            else:
                one, split = node.evaluations[part]
                how = {"format": format, "on_bad_row": one.on_bad_row, "limit": one.limit}
                yield from self._data(f"evaluate.{one.data}", one.data, split, one.options, how)

    def _training(self, recipe: Recipe, folder: Path, format: Any) -> Iterator[str]:
        from balanced_thinking.training.run import training_arguments

        try:
            get_format(training_arguments(recipe, folder).reasoning_format)
        except _FAULTS as error:
            yield str(error)
        how = {"format": format, "on_bad_row": recipe.on_bad_row, "limit": recipe.limit}
        yield from self._data("data", recipe.data, recipe.split, recipe.data_options, how)
        if recipe.validation_split:
            yield from self._data("data", recipe.data, recipe.validation_split, recipe.validation_options, how)

    def _data(
        self, where: str, data: str, split: str, options: Mapping[str, Any], how: dict[str, Any]
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
    print(json.dumps(faults(study, Path(sys.argv[1]))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
