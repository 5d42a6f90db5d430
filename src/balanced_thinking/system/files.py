"""Write files atomically and to the disk, and lock folders."""

from __future__ import annotations

import errno
import os
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
def open_atomically(path: Path, *, sync: bool = False) -> Iterator[TextIO]:
    """Open a file that replaces `path` when the block ends, and is deleted if the block fails.

    With `sync` its content is on the disk before it has its name, so that a loss of power leaves the old or the new.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def sync_file(path: Path) -> None:
    """Have the system write the content of a file to the disk. Raises OSError where the disk refuses, such as full."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Have the system write the names in a folder to the disk, where its file system has such a call."""
    try:
        sync_file(path)
    except OSError as error:  # Windows opens no folders; some network file systems do not sync them
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EISDIR):
            raise
