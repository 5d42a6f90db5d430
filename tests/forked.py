"""Python programs in forked children: they have what this process has imported, which otherwise takes seconds.

For tests of what a program does in a process of its own, where a new interpreter is not what is tested.
"""

from __future__ import annotations

import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

_STATES = ("AcceleratorState", "PartialState", "GradientState")


class ForkedPython:
    """`subprocess.Popen` of `[sys.executable, FILE, *words]` or `[sys.executable, "-m", MODULE, *words]`."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        env: Mapping[str, str] | None = None,
        cwd: Any = None,
        start_new_session: bool = False,
    ) -> None:
        assert command[0] == sys.executable, command
        self.args, self.returncode = list(command), None
        outputs = {1: stdout, 2: stderr}
        sys.stdout.flush(), sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become_program(command[1:], outputs, env, cwd, start_new_session)

    def poll(self) -> int | None:
        return self._collect(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self._collect(0 if deadline is None else os.WNOHANG)) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _collect(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


def run_forked(command: Sequence[str], **options: Any) -> int:
    """The exit code of the program, negative for a signal. `options` are those of `ForkedPython`."""
    return ForkedPython(command, **options).wait()


class StartedRank(NamedTuple):
    process: ForkedPython
    log: Path


def start_ranks(
    command: Sequence[str], ranks: int, folder: Path, env: Mapping[str, str] | None = None
) -> list[StartedRank]:
    """Start a program as torchrun does, one process a rank, whose output is in a file of `folder`."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = {**(env or {}), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    started = []
    for rank in range(ranks):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(ranks)}
        with (log := folder / f"rank-{rank}.log").open("wb") as file:
            process = ForkedPython(command, stdout=file, stderr=file, env={**os.environ, **shared, **own})
        started.append(StartedRank(process, log))
    return started


def run_ranks(words: Sequence[str], ranks: int, env: Mapping[str, str], folder: Path) -> None:
    """Run a program on some ranks. Raises AssertionError with the output of a failed one."""
    started = start_ranks([sys.executable, *words], ranks, folder, env)
    processes = [rank.process for rank in started]
    while any(process.poll() is None for process in processes):
        if any(process.poll() for process in processes):  # the others would wait for it
            for process in processes:
                process.kill()
        time.sleep(0.02)
    failed = [rank.log.read_text()[-3000:] for rank in started if rank.process.returncode]
    assert not failed, failed[0]


def popen_forked(command: Any, **options: Any) -> Any:
    """In the place of `subprocess.Popen`: Python programs are forked, others are started as usual."""
    forked = isinstance(command, list) and command[0] == sys.executable
    return ForkedPython(command, **options) if forked else _POPEN(command, **options)


_POPEN = subprocess.Popen


def _become_program(
    words: Sequence[str], outputs: Mapping[int, Any], env: Mapping[str, str] | None, cwd: Any, new_session: bool
) -> None:
    """Run the program in this child, which ends with it."""
    code = 1
    try:
        if new_session:
            os.setsid()
        _redirect_outputs(outputs)
        if env is not None:
            os.environ.clear()
            os.environ.update(env)
        if cwd is not None:
            os.chdir(cwd)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _forget_process_state()
        code = _run_program(words)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _redirect_outputs(outputs: Mapping[int, Any]) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    for number, output in outputs.items():
        if output is not None:
            os.dup2(
                null if output == subprocess.DEVNULL else output if isinstance(output, int) else output.fileno(), number
            )
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115


def _forget_process_state() -> None:
    """accelerate's singletons: a rank of its own must not believe that it is this process."""
    import accelerate.state

    for name in _STATES:
        getattr(accelerate.state, name)._shared_state.clear()
    tempfile.tempdir = None  # it is chosen anew, by the environment
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def _run_program(words: Sequence[str]) -> int:
    module = words[0] == "-m"
    sys.argv = list(words[1:] if module else words)
    try:
        if module:
            sys.modules.pop(words[1], None)  # as a new interpreter: it has not run yet
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, os.path.dirname(words[0]))
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
    return 0
