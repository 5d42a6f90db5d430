"""The model that is evaluated: what results call it, where it is loaded from, and what the run that made it says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from balanced_thinking.config.errors import FileInTheWayError
from balanced_thinking.config.yaml import read_yaml_file
from balanced_thinking.models.base_places import recipe_of
from balanced_thinking.models.find import is_run_folder
from balanced_thinking.models.load import LoadedModel
from balanced_thinking.runs.evaluations import read_summary
from balanced_thinking.runs.manifest import ABOUT_FORMAT, DamagedFilesError, read_manifest
from balanced_thinking.runs.paths import CHECKPOINTS, EVALUATIONS, MODEL, SUMMARY, EvaluationFiles, RunFiles
from balanced_thinking.system.files import expand_home

_SEED = re.compile(r"seed-\d+")


@dataclass(frozen=True)
class EvaluatedModel:
    """`name` as results call it, `folder` (or hub name) that is loaded, `run` that it is the model of (None: of none),
    and `config`, the run's recipe, where there is one. `loaded` is a model that is in memory already."""

    name: str
    folder: str
    run: Path | None = None
    config: Path | None = None
    loaded: LoadedModel | None = None

    @property
    def format(self) -> str | dict[str, Any] | None:
        """The reasoning format that it was trained in; None where neither a recipe nor a manifest gives one."""
        if self.config is None or not self.config.is_file():
            return _recorded_format(expand_home(self.folder))
        config = read_yaml_file(self.config)
        training = config.get("training") if isinstance(config, dict) else None
        return training.get("reasoning_format") if isinstance(training, dict) else None

    def results_folder(self) -> Path:
        """The folder of its results, unless another one is named: in its run, or beside the runs in a folder of its
        own, so that a report shows it as an arm. Raises FileExistsError where that is a run, or another model's."""
        if self.run is not None:
            return RunFiles(self.run).evaluations
        folder = Path("runs") / self._folder_name()
        files = RunFiles(folder)
        if files.config.exists() or files.provenance.exists():
            raise FileInTheWayError(
                f"the results of {self.name} cannot be written to {folder}, which is a run of another model; choose "
                "another folder with --out"
            )
        for other in _models_evaluated_in(folder):
            if _same_place(other) != _same_place(self.name):
                raise FileInTheWayError(
                    f"the results of {self.name} cannot be written to {folder}, which has those of {other}; choose "
                    "another folder with --out"
                )
        return files.evaluations

    def _folder_name(self) -> str:
        """The last part of its name, a checkpoint's with its run's before it, a seed's with its arm's."""
        place = expand_home(self.name)
        parts = [place.resolve().name if place.is_dir() else self.name.rpartition("/")[2]]
        if self.config is not None:
            run = self.config.resolve().parent
            parts = [*([run.parent.name] if _SEED.fullmatch(run.name) else []), run.name, *parts]
        return re.sub(r"[^\w.+=-]+", "-", "-".join(parts)).lstrip(".")


def _recorded_format(folder: Path) -> str | dict[str, Any] | None:
    """The format in the manifest of a trained or exported model, also of a copy; None where there is none."""
    try:
        return read_manifest(folder).about.get(ABOUT_FORMAT)
    except (FileNotFoundError, NotADirectoryError, DamagedFilesError):  # what is damaged, loading refuses
        return None


def _models_evaluated_in(folder: Path) -> list[str]:
    """The models whose results a folder holds."""
    summaries = sorted(folder.glob(f"{EVALUATIONS}/*/{SUMMARY}"))
    return [name for path in summaries if (name := read_summary(EvaluationFiles(path.parent)).model)]


def _same_place(name: str) -> Path:
    """Equal for all names of a local folder. A hub name counts as a path of its own."""
    return expand_home(name).resolve()


def locate_model(model: str | LoadedModel) -> EvaluatedModel:
    """A run directory, the folder `model` in one (which is the run's), a run's checkpoint, any other model's folder or
    hub name, or a model in memory. Raises ValueError for anything else."""
    if isinstance(model, LoadedModel):
        name = model.source or getattr(model.model.config, "_name_or_path", "") or type(model.model).__name__
        return EvaluatedModel(name, "", loaded=model)
    if not isinstance(model, str | Path):
        raise ValueError(
            f"the model is a {type(model).__name__}; expected a path, a hub name, or a LoadedModel: pass "
            "`LoadedModel(model, processor)`, or what `load_model` returns"
        )
    place = _with_name(expand_home(model))
    linked = place.resolve() if place.is_symlink() and not is_run_folder(place) else place
    for one in (place, linked):  # as it is written, and where a link leads
        if one.name == MODEL and RunFiles(one.parent).config.is_file():
            place = _with_name(one.parent)
            break
    files = RunFiles(place)
    if is_run_folder(place):
        return EvaluatedModel(str(place), str(files.model), place, files.config)
    of_run = place.parent.name == CHECKPOINTS
    config = RunFiles(place.parent.parent).config if of_run else recipe_of(place)
    return EvaluatedModel(str(model), str(model), None, config)


def _with_name(place: Path) -> Path:
    """The place by a path with a name, which "." does not have."""
    return place if place.name else place.absolute()
