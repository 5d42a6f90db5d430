"""Write files atomically and to the disk, and recognise folders."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

_DEVICES = Path("/dev")


def expand_home(path: str | Path) -> Path:
    """A path with the user's home in the place of `~`; unchanged where nobody is called so. It never raises."""
    return Path(os.path.expanduser(path))


def cache_folder() -> Path:
    """`BALANCED_THINKING_CACHE`, else `balanced-thinking` in the user's cache folder."""
    if chosen := os.environ.get("BALANCED_THINKING_CACHE"):
        return expand_home(chosen)
    return expand_home(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "balanced-thinking"


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of `os.scandir` is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a circle of links
        return False


def write_atomically(path: Path, text: str) -> None:
    """Write through a temporary file and a rename, so that a reader never finds an incomplete file."""
    with open_atomically(path) as file:
        file.write(text)


@contextmanager
def open_atomically(path: Path, *, sync: bool = True) -> Iterator[TextIO]:
    """Open a file that replaces `path` when the block ends, and is deleted if the block fails.

    With `sync` its content is on the disk before it has its name, so that a loss of power leaves the old or the new.
    Several processes may write the same file: the last one wins, and its file is complete.
    """
    if _DEVICES in path.parents:  # such as /dev/stdout, which a file must not replace
        with path.open("w", encoding="utf-8") as file:
            yield file
        return
    partial = partial_path(path)
    try:
        with partial.open("x", encoding="utf-8") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def partial_path(path: Path) -> Path:
    """A name beside `path` for what replaces it once it is complete. No other process has the same."""
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}.partial")


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
