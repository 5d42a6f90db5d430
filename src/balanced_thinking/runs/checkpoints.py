"""The checkpoints of a run: their names, their order, and which of them are kept."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from balanced_thinking.runs.staging import remove_folder
from balanced_thinking.system.files import sync_folder

_NAME = re.compile(r"checkpoint-(0|[1-9]\d{0,17})")
_DAMAGED = "damaged-"


def checkpoint_name(step: int) -> str:
    return f"checkpoint-{step}"


def step_of_checkpoint(folder: Path) -> int | None:
    """The optimizer step in a checkpoint's name; None for another folder."""
    found = _NAME.fullmatch(folder.name)
    return int(found[1]) if found else None


def list_checkpoints(parent: Path) -> dict[int, Path]:
    """The folders named `checkpoint-N` by step, newest first."""
    found = {step_of_checkpoint(place): place for place in parent.glob("checkpoint-*") if place.is_dir()}
    return {step: found[step] for step in sorted((step for step in found if step is not None), reverse=True)}


def list_damaged_checkpoints(parent: Path) -> list[Path]:
    """Those that `set_aside` has renamed."""
    return sorted(place for place in parent.glob(f"{_DAMAGED}checkpoint-*") if place.is_dir())


def set_aside(checkpoint: Path) -> Path:
    """Rename a damaged checkpoint, so that nothing continues from it and its step can be saved again."""
    names = [f"{_DAMAGED}{checkpoint.name}{suffix}" for suffix in ("", *(f".{k}" for k in range(2, 1000)))]
    aside = next(place for name in names if not (place := checkpoint.with_name(name)).exists())
    checkpoint.rename(aside)
    sync_folder(aside.parent)
    return aside


def remove_older_checkpoints(parent: Path, limit: int | None, kept: Collection[str]) -> None:
    """Delete the oldest checkpoints until `limit` are left, but none of the names in `kept`. No limit keeps all."""
    if not limit or limit <= 0:
        return
    checkpoints = list(list_checkpoints(parent).values())
    allowed = max(limit, len(kept))
    removable = [place for place in reversed(checkpoints) if place.name not in kept]
    for place in removable[: max(0, len(checkpoints) - allowed)]:
        remove_folder(place)
