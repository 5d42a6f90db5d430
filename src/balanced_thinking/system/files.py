"""Write files atomically, and lock folders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def exclusive_lock(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Lock a folder against other processes that use this lock. It is released when this process ends, even by a crash.

    Raises BlockingIOError if another process has the lock and `wait` is false, and ImportError on Windows.
    """
    try:
        import fcntl
    except ImportError as error:  # Windows
        raise ImportError(
            f"{folder} cannot be locked against other processes: the module fcntl exists on Linux and macOS only; on "
            "Windows run the command in WSL"
        ) from error
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def write_atomically(path: Path, text: str) -> None:
    """Write through a temporary file and a rename, so that a reader never finds an incomplete file."""
    with open_atomically(path) as file:
        file.write(text)


@contextmanager
def open_atomically(path: Path) -> Iterator[TextIO]:
    """Open a file that replaces `path` when the block ends, and is deleted if the block fails."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            yield file
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
