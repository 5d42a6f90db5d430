"""Folders that are written beside their place and get their name when they are complete.

A process that is killed leaves what it was writing under a name with a dot, never half a folder under the final name.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from balanced_thinking.runs.manifest import seal_folder
from balanced_thinking.system.files import sync_folder

_SAVING, _OLD, _REMOVING = ".saving-", ".old-", ".removing-"


def staging_folder(final: Path) -> Path:
    """Where `final` is written before it has its name."""
    return final.with_name(_SAVING + final.name)


@contextmanager
def write_folder(final: Path, *, about: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """A new folder to write to. When the block ends it is sealed and becomes `final`; if it fails nothing is left."""
    staged = staging_folder(final)
    remove_folder(staged)
    staged.mkdir(parents=True)
    try:
        yield staged
        seal_folder(staged, about=about)
        publish_folder(staged, final)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise


def publish_folder(staged: Path, final: Path) -> None:
    """Give a sealed folder its name. One that has the name already is there until then, and removed afterwards.

    A kill between the two renames leaves the older one under a name that `clear_leftovers` restores.
    """
    old = final.with_name(_OLD + final.name)
    if replaced := final.exists():
        remove_folder(old)
        final.rename(old)
    staged.rename(final)
    sync_folder(final.parent)
    if replaced:
        remove_folder(old)


def remove_folder(folder: Path) -> None:
    """Delete a folder. It loses its name first, so that a kill never leaves half of it under that name."""
    if not folder.exists():
        return
    doomed = folder
    if not folder.name.startswith("."):
        doomed = folder.with_name(_REMOVING + folder.name)
        shutil.rmtree(doomed, ignore_errors=True)
        folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def clear_leftovers(parent: Path) -> list[str]:
    """Remove what a killed process was writing or deleting in `parent`; the names. No other process may write there.

    A folder that was being replaced gets its name again if the new one had not.
    """
    cleared = []
    for prefix in (_OLD, _SAVING, _REMOVING):
        for place in sorted(parent.glob(f"{prefix}*")):
            final = place.with_name(place.name.removeprefix(prefix))
            if prefix == _OLD and not final.exists():
                place.rename(final)
            else:
                shutil.rmtree(place, ignore_errors=True)
            cleared.append(place.name)
    return cleared
