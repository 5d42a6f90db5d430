"""Where an evaluated model lies, and what the run that it is of says about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from balanced_thinking.models.load import is_run
from balanced_thinking.training.recipe import read_yaml


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
        config = read_yaml(self.config.read_text(), str(self.config))
        training = config.get("training") if isinstance(config, dict) else None
        return training.get("reasoning_format") if isinstance(training, dict) else None

    @property
    def results(self) -> Path:
        """The folder of its results, unless another one is named."""
        return (self.run or Path("runs")) / "eval"


def locate(model: str) -> Place:
    """A run directory, the folder `model` in one (which is the run's), a run's checkpoint, or any other model."""
    place = Path(model).expanduser()
    place = place if place.name else place.absolute()  # "." has no name
    if place.name == "model" and (place.parent / "config.yaml").is_file():
        place = place.parent
    if is_run(place):
        return Place(str(place), str(place / "model"), place, place / "config.yaml")
    of_run = place.parent.name == "checkpoints"
    return Place(model, model, None, place.parent.parent / "config.yaml" if of_run else None)
