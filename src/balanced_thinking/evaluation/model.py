"""Where an evaluated model lies, and what the run that it is of says about it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from balanced_thinking.config.yaml import read_yaml
from balanced_thinking.models.load import is_run_folder

_SEED = re.compile(r"seed-\d+")


@dataclass(frozen=True)
class Place:
    """A model: `name` as results call it, `folder` (or hub name) that is loaded, `run` whose model it is (None: it is
    no run's), and the run's recipe, `config`, where there is one."""

    name: str
    folder: str
    run: Path | None
    config: Path | None

    @property
    def format(self) -> str | dict[str, Any] | None:
        """The reasoning format that it was trained in; None where no recipe gives one."""
        if self.config is None or not self.config.is_file():
            return None
        config = read_yaml(self.config.read_bytes(), str(self.config))
        training = config.get("training") if isinstance(config, dict) else None
        return training.get("reasoning_format") if isinstance(training, dict) else None

    def results(self) -> Path:
        """The folder of its results, unless another one is named: in its run, or beside the runs in a folder of its
        own, so that a report shows it as an arm. Raises FileExistsError where that one is a run, or another model's."""
        if self.run is not None:
            return self.run / "eval"
        folder = Path("runs") / self._own_name()
        if any((folder / name).exists() for name in ("config.yaml", "provenance.json")):
            raise FileExistsError(
                f"results of {self.name} would go to {folder}, which is a run of another model; choose an --out"
            )
        for other in _evaluated(folder):
            if _whole(other) != _whole(self.name):
                raise FileExistsError(
                    f"results of {self.name} would go to {folder}, which holds those of {other}; choose an --out"
                )
        return folder / "eval"

    def _own_name(self) -> str:
        """The last part of its name, a checkpoint's with its run's before it, a seed's with its arm's."""
        place = Path(self.name).expanduser()
        parts = [place.resolve().name if place.is_dir() else self.name.rpartition("/")[2]]
        if self.config is not None:
            run = self.config.resolve().parent
            parts = [*([run.parent.name] if _SEED.fullmatch(run.name) else []), run.name, *parts]
        return re.sub(r"[^\w.+=-]+", "-", "-".join(parts)).lstrip(".")


def _evaluated(folder: Path) -> list[str]:
    """The models of whose results a folder has any."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("eval/*/summary.json"))]
    return [str(about["model"]) for about in found if isinstance(about, dict) and about.get("model")]


def _whole(name: str) -> Path:
    """One and the same for all names of a local folder; a hub name is as good as a path of its own."""
    return Path(name).expanduser().resolve()


def locate(model: str) -> Place:
    """A run directory, the folder `model` in one (which is the run's), a run's checkpoint, or any other model."""
    place = Path(model).expanduser()
    place = place if place.name else place.absolute()  # "." has no name
    if place.name == "model" and (place.parent / "config.yaml").is_file():
        place = place.parent
    if is_run_folder(place):
        return Place(str(place), str(place / "model"), place, place / "config.yaml")
    of_run = place.parent.name == "checkpoints"
    return Place(model, model, None, place.parent.parent / "config.yaml" if of_run else None)
