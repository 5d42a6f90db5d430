"""Runs a command on hostile input, in this process, and fails if the input had an effect.

An attack is effective if the command ends in a traceback or in its last handler, takes too long or too much memory,
changes a file outside the given folder, starts a program, or asks a network. What this process does is seen by an audit
hook of Python: files that C code opens by itself are not.
"""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from balanced_thinking.cli import main
from balanced_thinking.system.crash import find_crash_files
from balanced_thinking.system.memory import peak_mib, reset_peak

SECONDS, MEMORY_MIB = 10.0, 512
_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request")
_PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn")
_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_OURS = re.compile(r"/proc/|/dev/null$|.*/__pycache__/|.*/matplotlib/|.*\.pyc(?:\.\d+)?$")


class TookTooLong(BaseException):
    """The time limit of an attack has passed. It is no Exception, so that nothing on the way catches it."""


@dataclass
class Watch:
    """What happened while an attack ran. `allowed` are folders in which files may be written."""

    allowed: list[str]
    network: list[str] = field(default_factory=list)
    programs: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    seconds: float = 0.0
    grown_mib: int = 0

    def see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("tempfile.mkdtemp", "tempfile.mkstemp"):
            self.allowed.append(os.fspath(arguments[0]))
        elif event in _NETWORK:
            self.network.append(f"{event} {arguments[1:] or arguments}")
        elif event in _PROGRAMS:
            self.programs.append(f"{event} {arguments[:2]}")
        elif event in _CHANGES or (event == "open" and _opens_for_writing(arguments)):
            self.note_write(arguments[0])

    def note_write(self, path: Any) -> None:
        if isinstance(path, (str, bytes, os.PathLike)):
            place = os.path.realpath(os.fsdecode(path).partition("\0")[0])
            inside = any(place == folder or place.startswith(folder + os.sep) for folder in self.allowed)
            if not inside and not _OURS.match(place):
                self.written.append(place)


@dataclass(frozen=True)
class Result:
    """How a command ended. err: its log; peak_mib: by how much the memory of the process grew."""

    code: int
    out: str
    err: str
    seconds: float = 0.0
    peak_mib: int = 0

    @property
    def sentence(self) -> str:
        """The last line of the log: what the command says about its failure."""
        lines = self.err.strip().splitlines()
        return lines[-1] if lines else ""


_WATCHES: list[Watch] = []


def _opens_for_writing(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    return any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool((flags or 0) & _WRITING)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _WATCHES:
        _WATCHES[-1].see(event, arguments)


sys.addaudithook(_audit)  # it stays for the life of the process, and does nothing outside `watch_attack`


@contextmanager
def watch_attack(folder: Path, *, seconds: float = SECONDS, memory_mib: int = MEMORY_MIB) -> Iterator[Watch]:
    """Fail if the block has an effect: see the top of this file. For attacks on a function; main thread only."""

    def stop(_: int, __: FrameType | None) -> None:
        raise TookTooLong(f"still running after {seconds} s")

    cache = os.environ.get("BALANCED_THINKING_CACHE", "")
    watch = Watch([os.path.realpath(one) for one in (folder, cache) if str(one)])
    reset_peak()
    before, started = peak_mib(), time.perf_counter()
    handler = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    _WATCHES.append(watch)
    try:
        yield watch
    finally:
        _WATCHES.remove(watch)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        watch.seconds, watch.grown_mib = time.perf_counter() - started, peak_mib() - before
    assert not watch.network, f"a network was asked: {watch.network}"
    assert not watch.programs, f"a program was started: {watch.programs}"
    assert not watch.written, f"changed outside {folder}: {watch.written}"
    assert watch.grown_mib <= memory_mib, f"took {watch.grown_mib} MiB; at most {memory_mib} are allowed"


def run_balanced(
    argv: Sequence[str | Path], folder: Path, *, seconds: float = SECONDS, memory_mib: int = MEMORY_MIB
) -> Result:
    """Run a command in `folder`, in which alone it may change files. Fails if the attack is effective."""
    before = set(_crash_files(folder))
    out, err = _make_stream("strict"), _make_stream("backslashreplace")  # as Python opens its own
    with (
        chdir(folder),
        watch_attack(folder, seconds=seconds, memory_mib=memory_mib) as watch,
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        code = _call_main([str(word) for word in argv])
    printed, logged = _read_stream(out), _read_stream(err)
    said = f"{printed}\n{logged}"
    assert "Traceback" not in said, said
    crashes = set(_crash_files(folder)) - before
    assert not crashes, "\n".join(path.read_text(errors="replace") for path in crashes)
    assert code in (0, 1, 2), f"exit code {code}: {said}"
    return Result(code, printed, logged, watch.seconds, watch.grown_mib)


def _make_stream(errors: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=errors, newline="")


def _read_stream(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()


def _crash_files(folder: Path) -> list[Path]:
    """What the last handler wrote, in the folders of this one or in the system's temporary one."""
    return find_crash_files(
        folder, *(place for place in folder.rglob("*") if place.is_dir() and not place.is_symlink())
    )


def _call_main(argv: list[str]) -> int:
    try:
        return main(argv)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 2


def assert_refused(result: Result, *said: str, code: int | None = None) -> None:
    """The command failed with exit code 1 or 2, and its sentence has each of these texts."""
    assert result.code in ((1, 2) if code is None else (code,)), result
    assert result.sentence, "nothing was said"
    for text in said:
        assert text in result.err, f"{text!r} is not in: {result.err[-2000:]}"
    assert len(result.err) < 20_000, f"{len(result.err)} characters were said"


def write_rows(path: Path, *lines: str | bytes) -> Path:
    """A file of these lines, as they are."""
    path.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines))
    return path


def remove_fifo(path: Path) -> None:
    """pytest's clean-up of its folder would not mind, but a grep of its user would block."""
    with suppress(FileNotFoundError):
        path.unlink()
