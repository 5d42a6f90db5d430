"""What a Ray task does on its node: start a process of ours there, and watch it.

Ray sends these functions by value, and they use the standard library alone. So the process of Ray needs no memory for
our libraries, and a node that lacks them can still say so. All memory is free again when the process has ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class NodeProgram:
    """A Python module of ours to run on a node, with that node's own interpreter.

    `environment` is added to that of the node. `log` gets its output, None returns it.
    """

    module: str
    words: tuple[str, ...]
    folder: str
    environment: dict[str, str] = field(default_factory=dict)
    stdin: str = ""
    log: str | None = None
    timeout_seconds: float | None = None


@dataclass(frozen=True)
class NodeResult:
    """How a program ended: its exit code, negative for a signal, and what it wrote."""

    code: int
    out: str = ""
    error: str = ""


def run_program(program: NodeProgram) -> NodeResult:
    """Run a short program to its end. Every failure to start it is a result, too."""
    try:
        done = subprocess.run(
            _command_of(program),
            input=program.stdin,
            env=os.environ | program.environment,
            cwd=program.folder,
            timeout=program.timeout_seconds,
            capture_output=True,
            text=True,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return NodeResult(1, error=f"{type(error).__name__}: {error}")
    return NodeResult(done.returncode, done.stdout, done.stderr)


def watch_program(program: NodeProgram) -> NodeResult:
    """Run a long program, with its output in a log, that is given this process as its `--parent`.

    A cancelled task passes SIGTERM on and waits until it has ended. Ray cancels a task by the handler of SIGINT in its
    process. Its own handler would raise an error anywhere in here.
    """
    asked: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    before: Any = signal.signal(signal.SIGINT, lambda number, _: asked.append(number)) if main else None
    try:
        with Path(program.log or os.devnull).open("ab") as log:
            process = subprocess.Popen(
                [*_command_of(program), "--parent", str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | program.environment,
                cwd=program.folder,
                start_new_session=True,
            )
        passed_on = 0
        while process.poll() is None:
            time.sleep(_POLL_SECONDS)
            while passed_on < len(asked):
                passed_on += 1
                process.send_signal(signal.SIGTERM)
        return NodeResult(process.returncode)
    except OSError as error:
        return NodeResult(1, error=f"{type(error).__name__}: {error}")
    finally:
        if main:
            signal.signal(signal.SIGINT, before)


def _command_of(program: NodeProgram) -> list[str]:
    return [sys.executable, "-m", program.module, *program.words]
