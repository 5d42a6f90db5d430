"""Files that are never half written, and locks on folders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def exclusive_lock(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder against other processes that ask for it in this way; the system lets go of it however this one
    ends. Raises BlockingIOError where another one holds it, unless it is to `wait`; ImportError on Windows."""
    try:
        import fcntl
    except ImportError as error:  # Windows
        raise ImportError(
            f"{folder} cannot be locked against other processes: this Python has no module fcntl, which only Linux and "
            "macOS have; on Windows run the command in WSL"
        ) from error
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def write_atomically(path: Path, text: str) -> None:
    """Write through a temporary file and a rename, so that a reader never meets half a file."""
    with written_atomically(path) as file:
        file.write(text)


@contextmanager
def written_atomically(path: Path) -> Iterator[TextIO]:
    """A file that takes its place once it is whole, and is thrown away where writing it fails."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            yield file
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
