"""One process at a time in a folder.

`hold_folder` locks `FOLDER/.lock` for as long as its block runs. The system releases the lock when the process ends,
however it ends. Children do not inherit it. On a network file system whose locks are not shared, or that has none, the
heartbeat of the holder decides (`lock_owner.py`).

Two steps take a lock. First the system's own lock (flock), which decides between the processes of a machine, and on
most network file systems between machines. Then a file that only one can create, in whose short life the record is read
and written: it decides between machines whose locks are not shared.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from balanced_thinking.config.errors import UsageError
from balanced_thinking.system import lock_claim, lock_owner
from balanced_thinking.system.lock_claim import TryAgainError
from balanced_thinking.system.lock_owner import ForeignLockError, Owner

logger = logging.getLogger(__name__)
LOCK = ".lock"
CLAIM = ".claim"  # behind the name of a lock: held while its record is read and written
_POLL_SECONDS = 0.2
_TRIES = 200  # to open a file in a folder that others remove


class FolderBusyError(UsageError, BlockingIOError):
    """Another process works in the folder, or writes the file. The message names it."""


@dataclass
class _Lock:
    """A lock that this process holds."""

    place: Path
    descriptor: int
    owner: Owner
    made: list[Path]
    thread: int = field(default_factory=threading.get_ident)
    ended: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class _Refusal:
    """Why a lock was not taken: another holds it for certain, or its record is young enough that it may."""

    owner: Owner | None
    certain: bool
    beat: float = 0.0
    age: float = 0.0


_HELD: dict[str, _Lock] = {}
_DESCRIPTORS: set[int] = set()


def _forget_in_child() -> None:
    """A forked child, such as one that loads data, would keep the lock after its parent was killed."""
    for descriptor in _DESCRIPTORS:
        with suppress(OSError):
            os.close(descriptor)
    _DESCRIPTORS.clear()
    _HELD.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forget_in_child)


@contextmanager
def hold_folder(folder: Path, purpose: str, *, wait: bool = False, name: str = LOCK) -> Iterator[None]:
    """Keep other processes out of `folder`, which is made if needed, until the block ends.

    Within one thread it may be nested. A folder that it made is removed in the end if nothing was written to it.

    Args:
        purpose: what this process does, as in "process 7 has been training in it".
        wait: wait for the other process in place of an error.
        name: of the lock file, the same for all that must not meet.

    Raises FolderBusyError where another process or thread has it.
    """
    with _hold_lock(folder / name, folder, purpose, wait):
        yield


def is_within_held(folder: Path) -> bool:
    """Whether this process holds the folder, or one that it is in."""
    return any(os.path.realpath(place / LOCK) in _HELD for place in (folder, *folder.absolute().parents))


@contextmanager
def hold_file(path: Path, purpose: str, *, wait: bool = False) -> Iterator[None]:
    """As `hold_folder`, for a file that this process writes and the folder of which belongs to others."""
    with _hold_lock(path.with_name(f".{path.name}.lock"), path, purpose, wait):
        yield


@contextmanager
def _hold_lock(place: Path, shown: Path, purpose: str, wait: bool) -> Iterator[None]:
    key = os.path.realpath(place)
    before = _HELD.get(key)
    if before is not None and before.thread == threading.get_ident():
        yield
        return
    try:
        held = _take_lock(place, shown, purpose, wait)
    except ForeignLockError as error:
        raise FolderBusyError(f"{shown} cannot be locked: {error}; remove that, or choose another --out") from error
    _HELD[key] = held
    beating = threading.Thread(target=_beat_until_ended, args=(held,), name="lock-heartbeat", daemon=True)
    beating.start()
    try:
        yield
    finally:
        if held.owner.pid == os.getpid():  # a forked child does not release what its parent holds
            held.ended.set()
            _HELD.pop(key, None)
            _release_lock(held)


def _take_lock(place: Path, shown: Path, purpose: str, wait: bool) -> _Lock:
    made: list[Path] = []
    first: _Refusal | None = None
    waits, missing = False, 0
    try:
        while True:
            try:
                found = _try_lock(place, purpose, made)
            except TryAgainError:
                continue
            except FileNotFoundError:  # a start that failed has just removed the folder
                missing += 1
                if missing > _TRIES:
                    raise
                time.sleep(0.01)
                continue
            if isinstance(found, _Lock):
                return found
            same = first is not None and first.owner == found.owner and first.beat == found.beat
            if not wait and (found.certain or (first is not None and not same)):
                raise FolderBusyError(_describe_refusal(shown, found.owner))
            first = first or found
            if not waits:
                logger.info("%s", _describe_wait(shown, found, wait))
                waits = True
            time.sleep(_POLL_SECONDS)
    except BaseException:
        _remove_empty(made)
        raise


def _describe_refusal(shown: Path, owner: Owner | None) -> str:
    who = "another process works in it" if owner is None else owner.describe()
    return f"{shown} is in use: {who}; wait for it, stop it, or choose another --out"


def _describe_wait(shown: Path, found: _Refusal, wait: bool) -> str:
    who = "another process works in it" if found.owner is None else found.owner.describe()
    if wait:
        return f"waiting until {shown} is free: {who}"
    left = max(1, round(lock_owner.STALE_SECONDS - found.age))
    return f"{shown} may be in use: {who}. Its last sign of life is {found.age:.0f} s old: looking for up to {left} s"


def _try_lock(place: Path, purpose: str, made: list[Path]) -> _Lock | _Refusal:
    """One attempt. Folders that it makes are added to `made`."""
    made += _make_folders(place.parent)
    descriptor = lock_claim.open_lock(place)
    _DESCRIPTORS.add(descriptor)
    found: _Lock | _Refusal | None = None
    try:
        owner, _ = lock_owner.read_owner(place)
        locked = lock_claim.lock_descriptor(descriptor)
        if locked is False:
            return _Refusal(owner or _read_new_owner(place), certain=True)
        if not lock_claim.is_file_at(descriptor, place):
            raise TryAgainError
        found = _claim_lock(place, descriptor, purpose, locked)
        if isinstance(found, _Lock):
            found.made = made
        return found
    finally:
        if not isinstance(found, _Lock):
            _close_descriptor(descriptor)


def _read_new_owner(place: Path) -> Owner | None:
    """The record of a holder that may be just about to write it."""
    for _ in range(20):
        with suppress(OSError):
            owner, _ = lock_owner.read_owner(place)
            if owner is not None:
                return owner
        time.sleep(0.01)
    return None


def _claim_lock(place: Path, descriptor: int, purpose: str, locked: bool | None) -> _Lock | _Refusal:
    """Judge the record that is there and, where its writer has ended, put that of this process in its place."""
    device = os.fstat(descriptor).st_dev
    mine = lock_owner.describe_this_process(purpose, device)
    with lock_claim.hold_claim(place.with_name(place.name + CLAIM), mine, locked) as now:
        other, status = lock_owner.read_owner(place)
        if other is not None and not (other.is_on_this_machine(device) and locked) and not other.has_ended():
            age = now - status.st_mtime
            if age < lock_owner.STALE_SECONDS:
                return _Refusal(other, certain=False, beat=status.st_mtime, age=max(0.0, age))
            logger.info("%s has not been heard of for %.0f s: its lock is taken over", other.describe(), age)
        lock_owner.write_owner(descriptor, mine)
        os.utime(place)  # by the clock of the file server, which a write that is kept on this machine would not be
    return _Lock(place, descriptor, mine, [])


def _beat_until_ended(held: _Lock) -> None:
    """Show other machines that this process lives. End it where another process has taken the folder over."""
    while not held.ended.wait(lock_owner.BEAT_SECONDS):
        with suppress(OSError, ForeignLockError):  # the file server may be away for a while
            owner, _ = lock_owner.read_owner(held.place)
            if owner is not None and owner.token != held.owner.token:
                _end_evicted(held.place, owner)
            os.utime(held.place)


def _end_evicted(place: Path, owner: Owner) -> None:
    """After a suspended machine or a cut network, or because the folder was removed and made anew."""
    logger.error(
        "%s was taken over: %s. This process (%d) ends now, because two must not write there",
        place.parent,
        owner.describe(),
        os.getpid(),
    )
    os._exit(1)


def _release_lock(held: _Lock) -> None:
    if os.name == "nt":  # where an open file cannot be removed
        _close_descriptor(held.descriptor)
    with suppress(OSError, ForeignLockError):
        owner, _ = lock_owner.read_owner(held.place)
        if owner is not None and owner.token == held.owner.token:
            held.place.unlink()
    if os.name != "nt":
        _close_descriptor(held.descriptor)
    _remove_empty(held.made)


def _close_descriptor(descriptor: int) -> None:
    if descriptor in _DESCRIPTORS:
        _DESCRIPTORS.discard(descriptor)
        os.close(descriptor)


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and those above it. Returns those that this process has made, the topmost first."""
    made = []
    for place in reversed([place for place in (folder, *folder.parents) if not place.exists()]):
        try:
            place.mkdir()
        except FileExistsError:
            if not place.is_dir():
                raise
        else:
            made.append(place)
    return made


def _remove_empty(made: list[Path]) -> None:
    for place in reversed(made):
        with suppress(OSError):  # something is in it
            place.rmdir()
