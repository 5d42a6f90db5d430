"""Who holds a lock: the record that its holder keeps in the lock file, and whether that holder is still there.

On this machine the system knows whether a holder lives. For a holder on another machine its heartbeat says so: it sets
the file's time every few seconds. Times are compared by the clock of the file system alone, because the clocks of two
machines differ.
"""

from __future__ import annotations

import getpass
import json
import math
import os
import secrets
import shlex
import socket
import stat
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from balanced_thinking.config.foreign_json import parse_json
from balanced_thinking.system.process import utc_now

BEAT_SECONDS = 15.0  # between two heartbeats
STALE_SECONDS = 60.0  # without a heartbeat: four of them have not come
_LARGEST_RECORD = 2**16  # bytes
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = Path("/proc/self/ns/pid")


class ForeignLockError(ValueError):
    """Where the lock file would be, there is something else."""


@dataclass(frozen=True)
class Owner:
    """The holder of a lock. `device` is the number of the mount, `machine` changes with every start of the system."""

    token: str
    pid: int
    process_started: float
    host: str
    machine: str
    namespace: str
    device: int
    user: str
    command: str
    purpose: str
    started: str

    def describe(self) -> str:
        since = self.started.replace("T", " ").replace("+00:00", " UTC")
        return f"process {self.pid} on {self.host} has been {self.purpose} in it since {since}"

    def is_on_this_machine(self, device: int) -> bool:
        """Whether the holder asks the same system for the lock, by the same mount."""
        return (self.machine, self.device) == (machine_id(), device)

    def has_ended(self) -> bool:
        """Whether the holder is known to have ended, because this process could see it."""
        if (self.machine, self.namespace) != (machine_id(), pid_namespace()):
            return False
        started = process_start(self.pid)
        return started is None or abs(started - self.process_started) > 1.0


def describe_this_process(purpose: str, device: int) -> Owner:
    user = ""
    with suppress(OSError, KeyError, ImportError):  # a container's user may have no name
        user = getpass.getuser()
    return Owner(
        token=secrets.token_hex(8),
        pid=os.getpid(),
        process_started=process_start(os.getpid()) or 0.0,
        host=socket.gethostname(),
        machine=machine_id(),
        namespace=pid_namespace(),
        device=device,
        user=user,
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        purpose=purpose,
        started=utc_now(),
    )


def machine_id() -> str:
    """Differs from machine to machine, and from one start of a machine to the next."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:  # not Linux
        import psutil

        return f"{socket.gethostname()} {int(psutil.boot_time())}"


def pid_namespace() -> str:
    """Containers number their processes apart."""
    try:
        return os.readlink(_PID_NAMESPACE)
    except OSError:
        return ""


def process_start(pid: int) -> float | None:
    """When a process started, in seconds since 1970; None where none with this number runs, NaN where none may know."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:
        return math.nan


def read_owner(place: Path) -> tuple[Owner | None, os.stat_result]:
    """The record in a lock file, None where it has none, and the state of the file.

    The file is opened anew each time: network file systems ask the server for the file's time then.
    Raises ForeignLockError for a file that no lock has written, OSError where it cannot be opened.
    """
    descriptor = os.open(place, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ForeignLockError(f"{place} is not a file")
        content = os.read(descriptor, _LARGEST_RECORD)
    finally:
        os.close(descriptor)
    if content[:1] not in (b"", b"\0", b"{"):
        raise ForeignLockError(f"{place} is not a lock of this command")
    return _parse_owner(content), status


def _parse_owner(content: bytes) -> Owner | None:
    try:
        found = parse_json(content)
        return Owner(**{field.name: found[field.name] for field in fields(Owner)})
    except (ValueError, KeyError, TypeError, RecursionError):  # a kill or a power cut can leave half a record
        return None


def write_owner(descriptor: int, owner: Owner) -> None:
    content = json.dumps(asdict(owner)).encode() + b"\n"
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, content)
    os.ftruncate(descriptor, len(content))
    os.fsync(descriptor)
