"""The two steps that take a lock: the system's own lock, and a file that only one process can create (`locks.py`)."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from balanced_thinking.system import lock_owner
from balanced_thinking.system.lock_owner import ForeignLockError, Owner

_POLL_SECONDS = 0.2
_HELD_BY_ANOTHER = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK}
_UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_LOCKED_BYTE = 2**30  # on Windows, where locked bytes cannot be read: far behind the record


class TryAgainError(Exception):
    """What was found has changed in the meantime."""


def open_lock(place: Path) -> int:
    """Open or create a lock file. Raises ForeignLockError for a link or a folder: what it leads to is not ours."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        return os.open(place, flags, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.ENXIO):
            raise ForeignLockError(f"{place} is not a file") from error
        raise


def lock_descriptor(descriptor: int) -> bool | None:
    """The system's lock: True if this process has it now, False if another has it, None if there are no locks here."""
    try:
        _ask_system_for_lock(descriptor)
    except ImportError:
        return None
    except OSError as error:
        if error.errno in _HELD_BY_ANOTHER:
            return False
        if error.errno in _UNSUPPORTED:
            return None
        raise
    return True


def _ask_system_for_lock(descriptor: int) -> None:
    """Raises OSError where it is not given, ImportError where there is no such system."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_file_at(descriptor: int, place: Path) -> bool:
    """Whether the open file is still the one with this name: its last holder may have removed it."""
    try:
        opened, named = os.fstat(descriptor), os.stat(place, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return False
        raise
    return opened.st_nlink > 0 and os.path.samestat(opened, named)


@contextmanager
def hold_claim(claim: Path, mine: Owner, locked: bool | None) -> Iterator[float]:
    """Create a file that only one process can create, and remove it. Gives the time of the file system."""
    try:
        descriptor = os.open(claim, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError as error:
        _remove_stale_claim(claim, mine, locked)
        raise TryAgainError from error
    try:
        now = os.fstat(descriptor).st_mtime  # which the file server has set
        lock_owner.write_owner(descriptor, mine)
        yield now
    finally:
        os.close(descriptor)
        claim.unlink(missing_ok=True)


def _remove_stale_claim(claim: Path, mine: Owner, locked: bool | None) -> None:
    """A process that was killed between two system calls leaves its claim behind."""
    with suppress(FileNotFoundError):
        other, status = lock_owner.read_owner(claim)
        ended = other is not None and ((locked and other.is_on_this_machine(mine.device)) or other.has_ended())
        if ended or _file_system_time(claim) - status.st_mtime > lock_owner.STALE_SECONDS:
            claim.unlink()
        else:
            time.sleep(_POLL_SECONDS)


def _file_system_time(beside: Path) -> float:
    """The time of the file system, from a file that was made just now."""
    probe = beside.with_name(f"{beside.name}-{os.getpid()}-{threading.get_ident()}")
    descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        probe.unlink(missing_ok=True)
