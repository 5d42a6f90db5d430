"""A folder that several machines share: what one has written, another may see only after a while.

Clients of a network file system keep what they know of a folder for some seconds, also that a file is not there.
Listing a folder makes them ask the server. All waits end after `PATIENCE_SECONDS`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

PATIENCE_SECONDS = 90.0  # NFS keeps attributes of a folder for up to 60 s by default
_POLL_SECONDS = 0.2


def refresh_folders(folders: Iterable[Path]) -> None:
    """Make the client of a network file system ask its server what is in these folders."""
    for folder in folders:
        with suppress(OSError):
            os.listdir(folder)


def wait_until(is_seen: Callable[[], bool], folders: Iterable[Path], seconds: float = PATIENCE_SECONDS) -> bool:
    """Wait until something in `folders` is seen. Returns at once where it is, and False after `seconds`."""
    deadline = time.monotonic() + seconds
    while not is_seen():
        if time.monotonic() > deadline:
            return False
        refresh_folders(folders)
        time.sleep(_POLL_SECONDS)
    return True


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content; empty where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def read_if_there(path: Path) -> str | None:
    """A small file's text, None where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
