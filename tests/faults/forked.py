"""Commands in forked children, which can be killed at a chosen moment.

The parent has imported torch, transformers, TRL and this package, and has trained once itself, which fills caches. So a
short training takes a third of a second in a child, and eight seconds in a new process. Every child is a process group
of its own, writes its output to a file, and is killed by a real SIGKILL.

A child sees its own file operations as events: a text such as `rename RUN/a RUN/b`, with paths below `watched`, which
is written RUN. C++ and Rust write files without an event. So the parent also kills at a time after an event.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

TIMEOUT_SECONDS = 300.0
CRASHED = 70  # the exit code of a child whose command raised
_NAMES = {"os.rename": "rename", "os.remove": "remove", "os.mkdir": "mkdir", "os.rmdir": "rmdir"}


class Moment(NamedTuple):
    """When a child is killed: at an event, or some time after it. `Moment()`, with no event, counts from the start."""

    pattern: str = ""  # a regular expression
    occurrence: int = 1  # of the events that match
    delay_seconds: float = 0.0  # 0: before the operation is done, exactly there
    pause: bool = False  # do not kill: the child stops there until `Forked.go_on`

    def describe(self) -> str:
        where = f"event {self.occurrence} of {self.pattern!r}" if self.pattern else "the start"
        return f"{self.delay_seconds * 1000:.1f} ms after {where}" if self.delay_seconds or not self.pattern else where


class Ended(NamedTuple):
    """How a child ended. `code` is negative for a signal, as in `subprocess`."""

    code: int
    text: str
    seconds: float
    events: tuple[tuple[float, str], ...] = ()

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def crashed(self) -> bool:
        """Whether it ended in a traceback, or in the last handler, which writes the traceback to a file."""
        return self.code == CRASHED or "Traceback" in self.text or "unexpected error of type" in self.text


@dataclass
class Forked:
    """A child that runs. Use it as a context manager: whatever happens, its process group is gone in the end."""

    call: Callable[[], int]
    output: Path
    watched: Path | None = None
    moment: Moment | None = None
    trace: bool = False  # whether to return the events
    prepare: Callable[[], None] | None = None  # run in the child, before the call
    pid: int = field(default=0, init=False)
    code: int | None = field(default=None, init=False)

    def __enter__(self) -> Forked:
        self.reading, writing = os.pipe()
        self.began = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            self._run_child(writing)
        os.close(writing)
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        if self.code is None:
            self._wait(block=True)
        os.close(self.reading)

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.code is None:
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:  # it has not made its group yet, or has ended
                os.kill(self.pid, number)

    def go_on(self) -> None:
        """After a pause. The child stops itself a moment after it has said so."""
        while Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2][0] != "T":
            time.sleep(0.001)
        os.killpg(self.pid, signal.SIGCONT)

    def poll(self) -> int | None:
        self._wait(block=False)
        return self.code

    def wait(self, seconds: float = TIMEOUT_SECONDS) -> int:
        """Its exit code. Raises TimeoutError, and kills it, where it takes longer."""
        deadline = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGUSR1)  # it writes where each of its threads is
                time.sleep(1)
                self.kill()
                raise TimeoutError(f"the child did not end in {seconds} s:\n{self.text()[-6000:]}")
            time.sleep(0.002)
        assert self.code is not None
        return self.code

    def wait_for_event(self) -> bool:
        """Until the child has reached its moment's event; false where it ended before."""
        return bool(os.read(self.reading, 1))

    def text(self) -> str:
        return self.output.read_text(errors="replace") if self.output.is_file() else ""

    def _wait(self, *, block: bool) -> None:
        if self.code is None:
            pid, status = os.waitpid(self.pid, 0 if block else os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)

    def _run_child(self, writing: int) -> None:
        code = CRASHED
        try:
            os.setsid()
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            _write_output_to(self.output)
            faulthandler.register(signal.SIGUSR1, sys.stderr)
            if "tqdm" in sys.modules:
                sys.modules["tqdm"].tqdm.set_lock(threading.RLock())
            if self.watched is not None:
                _watch_events(self, writing)
            if self.prepare:
                self.prepare()
            code = self.call()
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def run_forked(call: Callable[[], int], output: Path, **options: Any) -> Ended:
    """Run in a child and wait for its end, or kill it at its moment. The options are those of `Forked`."""
    with Forked(call, output, **options) as child:
        moment = child.moment
        by_time = moment is not None and (moment.delay_seconds or not moment.pattern)
        if moment is not None and by_time and (not moment.pattern or child.wait_for_event()):
            _kill_later(child, moment.delay_seconds)
        code = child.wait()
        seconds = time.monotonic() - child.began
    events = ()
    if child.trace and (path := _trace_file(output)).is_file():
        events = tuple((at, text) for at, text in map(json.loads, path.read_text().splitlines()))
        path.unlink()
    return Ended(code, child.text(), seconds, events)


def run_command(words: list[str], output: Path, **options: Any) -> Ended:
    """`balanced WORDS` in a child."""
    from balanced_thinking.cli import main

    return run_forked(partial(main, words), output, **options)


def prepare_parent(words: list[str]) -> None:
    """Run `balanced WORDS` in this process, the parent: what it imports and caches is there in every child.

    Freezing keeps the children's garbage collector away from what they share with the parent.
    """
    import tqdm

    from balanced_thinking.cli import main

    tqdm.tqdm.monitor_interval = 0  # its thread would not survive a fork
    # tqdm's own lock is shared with all children: one that is killed while it holds it would stop them all.
    tqdm.tqdm.set_lock(threading.RLock())
    assert main(words) == 0
    gc.collect()
    gc.freeze()


def _kill_later(child: Forked, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and child.poll() is None:
        time.sleep(min(0.001, max(0.0, deadline - time.monotonic())))
    child.kill()


def _write_output_to(path: Path) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (file, 1), (file, 2)):
        os.dup2(source, target)
    # In place of what pytest has put there.
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)


def _trace_file(output: Path) -> Path:
    return output.with_name(f"{output.name}.trace")


def _watch_events(child: Forked, writing: int) -> None:
    """Call `_Watcher` at every file operation of this process, which is the child."""
    assert child.watched is not None
    watcher = _Watcher(child, writing)
    sys.addaudithook(watcher.see)
    real_sync, real_move = os.fsync, os.replace

    def sync(descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        watcher.meet(f"sync {os.readlink(f'/proc/self/fd/{number}')}")
        real_sync(descriptor)

    def move(*paths: Any, **options: Any) -> None:
        real_move(*paths, **options)
        watcher.meet(f"renamed {' '.join(map(os.fsdecode, paths))}")

    os.fsync, os.replace = sync, move
    os.rename = move  # the same call on Linux


class _Watcher:
    def __init__(self, child: Forked, writing: int) -> None:
        self.place = str(child.watched)
        self.moment, self.writing = child.moment, writing
        self.pattern = re.compile(child.moment.pattern) if child.moment and child.moment.pattern else None
        self.trace = os.open(_trace_file(child.output), os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if child.trace else None
        self.count, self.began = 0, child.began
        self.made: set[str] = set()  # folders are often made again where they are there already
        self.busy = threading.local()

    def see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            if not isinstance(path, str | bytes | os.PathLike):
                return
            writes = bool((flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) or (mode or "r")[0] in "wax"
            self.meet(f"{'write' if writes else 'read'} {os.fsdecode(path)}")
        elif event in _NAMES:
            paths = [os.fsdecode(each) for each in arguments if isinstance(each, str | bytes | os.PathLike)]
            if event == "os.remove" and arguments[1] >= 0:  # relative to an open folder, as `shutil.rmtree` does it
                paths[0] = os.path.join(os.readlink(f"/proc/self/fd/{arguments[1]}"), paths[0])
            self.meet(f"{_NAMES[event]} {' '.join(paths)}")

    def meet(self, text: str) -> None:
        if self.place not in text or getattr(self.busy, "on", False):
            return
        self.busy.on = True
        try:
            text = text.replace(self.place, "RUN")
            if text.startswith("mkdir"):
                if text in self.made:
                    return
                self.made.add(text)
            if self.trace is not None:
                os.write(self.trace, (json.dumps([time.monotonic() - self.began, text]) + "\n").encode())
            if self.pattern is not None and self.moment is not None and self.pattern.search(text):
                self.count += 1
                if self.count == self.moment.occurrence:
                    self._reach()
        finally:
            self.busy.on = False

    def _reach(self) -> None:
        assert self.moment is not None
        os.write(self.writing, b"x")
        if self.moment.pause:
            os.kill(os.getpid(), signal.SIGSTOP)
        elif not self.moment.delay_seconds:
            os.kill(os.getpid(), signal.SIGKILL)
