"""Walks through a folder that a stranger may have made: links in circles, and many folders, are no hang."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from balanced_thinking.system.files import is_folder

_MOST_VISITS = 8  # of one folder, by different links


def walk_files(folder: Path, deepest: int) -> Iterator[Path]:
    """The files in a folder and at most `deepest` - 1 levels below, hidden ones not. Links to folders are followed.

    A folder inside of itself is left out, so that the work grows with what is on the disk, not with its links.
    """
    yield from _walk_level(folder, deepest, (), Counter())


def _walk_level(
    folder: Path, levels: int, above: tuple[tuple[int, int], ...], visits: Counter[tuple[int, int]]
) -> Iterator[Path]:
    try:
        about = os.stat(folder)
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:  # no permission, or removed meanwhile
        return
    identity = (about.st_dev, about.st_ino)
    if identity in above or visits[identity] >= _MOST_VISITS:
        return
    visits[identity] += 1
    for entry in entries:
        if not entry.name.startswith((".", "__")):
            if not is_folder(entry):
                yield Path(entry.path)
            elif levels > 1:
                yield from _walk_level(Path(entry.path), levels - 1, (*above, identity), visits)
