"""A saved model is compared with its manifest before anything of it is read."""

from __future__ import annotations

import logging
import time
from functools import lru_cache
from pathlib import Path, PurePosixPath

from balanced_thinking.runs.manifest import (
    MANIFEST,
    DamagedFilesError,
    describe_damages,
    find_damage,
    is_sealed,
    list_files,
)
from balanced_thinking.system.process import process_rank

logger = logging.getLogger(__name__)
_STATE_OF_TRAINING = {".pt", ".pth", ".distcp"}  # in a checkpoint; a model that is evaluated does not need them
_SILENT_SECONDS = 2.0


def refuse_altered_model(folder: Path) -> None:
    """Raises DamagedFilesError for a folder of ours in which a file is not what was saved; others have no manifest.

    Of several ranks the first one reads the files. Files that are as they were the last time are not read again.
    """
    if process_rank() == 0 and is_sealed(folder):
        stamps = ((name, (folder / name).lstat()) for name in list_files(folder))
        _verify_files(folder, tuple((name, about.st_size, about.st_mtime_ns, about.st_ino) for name, about in stamps))


@lru_cache(maxsize=64)
def _verify_files(folder: Path, stamps: tuple[tuple[str, int, int, int], ...]) -> None:
    began = time.perf_counter()
    damages = find_damage(folder, wanted=lambda name: PurePosixPath(name).suffix not in _STATE_OF_TRAINING)
    if damages:
        raise DamagedFilesError(
            f"{folder} is not what was saved: {describe_damages(damages)}. Copy it again; if the "
            f"change is yours, delete {folder / MANIFEST}",
            tuple(damages),
        )
    if (seconds := time.perf_counter() - began) > _SILENT_SECONDS:
        size = sum(size for _, size, _, _ in stamps) / 2**30
        logger.info("compared %s (%.1f GiB) with its manifest in %.1f s", folder, size, seconds)
