"""Where the folder is that an adapter means by its base: at its place, or moved together with the adapter. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from balanced_thinking.models.base_record import compare_base, read_base_record, refuse_other_base
from balanced_thinking.runs.manifest import DamagedFilesError, is_sealed, read_about, read_manifest
from balanced_thinking.runs.paths import CHECKPOINTS, MODEL, RunFiles
from balanced_thinking.system.files import expand_home

_NEAR = 3  # parents of an adapter: its run, the folder of runs, and one more for a checkpoint
_CONFIGS = ("config.json", "adapter_config.json")


def is_model_folder(folder: Path) -> bool:
    """Whether a model or an adapter is in the folder itself."""
    return any((folder / name).is_file() for name in _CONFIGS)


def model_of(place: Path) -> Path:
    """The folder of a run's model; any other folder is returned unchanged."""
    return RunFiles(place).model if is_model_folder(RunFiles(place).model) else place


def recipe_of(folder: Path) -> Path | None:
    """The recipe of the run that a model or a checkpoint in `folder` belongs to, links resolved; None without one."""
    place = folder.resolve()
    run = place.parents[1] if place.parent.name == CHECKPOINTS else place.parent if place.name == MODEL else None
    return RunFiles(run).config if run is not None and RunFiles(run).config.is_file() else None


def find_base_folder(adapter: Path, base: str) -> Path | None:
    """The folder that an adapter's `base` means; None where there is none.

    In this order: what its own run wrote, the folder at its place, one that was moved. Where the adapter's manifest
    records the weights of its base, the first one with these is taken. Raises OtherBaseError where none has them.
    """
    record = read_base_record(adapter)
    places = []
    for place in filter(partial(_is_other_model, adapter=adapter), _list_places(adapter, base)):
        if record is None or compare_base(record, model_of(place)) is None:
            return place.absolute()
        places.append(place.absolute())
    for place in filter(partial(_is_other_model, adapter=adapter), _list_namesakes(adapter, base) if record else ()):
        if compare_base(record or {}, model_of(place)) is None:
            return place.absolute()
    if places:
        refuse_other_base(adapter, base, model_of(places[0]))
    return None


def _is_other_model(place: Path, adapter: Path) -> bool:
    folder = model_of(place)
    return is_model_folder(folder) and folder.resolve() != adapter.resolve()


def _list_places(adapter: Path, base: str) -> Iterator[Path]:
    """Where the base may be. A moved one is looked for under the adapter's parents: this finds relative names from
    whatever folder they were written, and of `/old/runs/x/base` at least `x/base` must be there."""
    parts, is_absolute = expand_home(base).parts, Path(base).is_absolute()
    own = [place for place in _own_bases(adapter) if parts and place.name == parts[-1]]
    yield from (place for place in own if not is_absolute or _is_own_base(place, adapter))
    yield expand_home(base)
    yield from own
    suffixes = [] if is_absolute else [parts]
    suffixes += [parts[start:] for start in range(1, len(parts) - 1)]
    for parent in (adapter.absolute(), *adapter.absolute().parents):
        yield from (parent.joinpath(*suffix) for suffix in suffixes)


def _list_namesakes(adapter: Path, base: str) -> Iterator[Path]:
    """Folders of the base's name beside the adapter and its run: only the recorded weights can confirm one."""
    for parent in list(adapter.absolute().parents)[:_NEAR]:
        yield parent / Path(base).name


def _own_bases(adapter: Path) -> list[Path]:
    """Where the run of an adapter, or its export, would have written its base: never a run of its own."""
    places = []
    for folder in dict.fromkeys((adapter.absolute(), adapter.resolve())):
        places.append(folder)
        if folder.name == MODEL:
            places.append(folder.parent)
        if folder.parent.name == CHECKPOINTS:
            places.append(folder.parents[1])
    own = [RunFiles(place).base_model for place in places]
    return [place for place in own if not RunFiles(place).config.is_file()]


def _is_own_base(place: Path, adapter: Path) -> bool:
    """Whether the records say that an adapter's run, or its export, wrote this base. An older run has no records."""
    try:
        if is_sealed(place):
            return read_about(place).get("kind") == "base"
        if is_sealed(place.parent):
            return any(name.startswith(f"{place.name}/") for name in read_manifest(place.parent).files)
    except DamagedFilesError:
        return True  # of ours; loading it says what is wrong
    return RunFiles(place.parent).config.is_file() and not is_sealed(adapter)
