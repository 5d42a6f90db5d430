"""Running a study: every run as its own process, several at a time, only what is missing.

A study's folder holds `study.yaml`, `ledger.jsonl`, and below `[<setting>/]<arm>/seed-<k>/` a run directory each.
Killed at any moment, the same command goes on: a run that had saved a checkpoint from there, any other from its start.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from balanced_thinking.config.errors import BalancedThinkingError
from balanced_thinking.runs.evaluations import read_summary
from balanced_thinking.runs.ledger import read_ledger
from balanced_thinking.runs.paths import LOG, RunFiles, StudyFiles
from balanced_thinking.study.changes import refused
from balanced_thinking.study.check import check_runs, visible_gpus
from balanced_thinking.study.estimate import time_to_go
from balanced_thinking.study.plan import Node, Study, load_study, to_yaml
from balanced_thinking.study.worker import missing
from balanced_thinking.system.files import write_atomically
from balanced_thinking.system.process import usable_cores

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 10.0


class StudyError(BalancedThinkingError, RuntimeError):
    """Some runs of a study failed, or its folder holds another study; the message says which, and where to look."""


@dataclass
class _Schedule:
    """Which runs wait, run and have failed, and which were left out because the one they start from has."""

    waiting: list[Node]
    gpus: list[str] = field(default_factory=list)
    running: dict[subprocess.Popen[bytes], Node] = field(default_factory=dict)
    failed: list[Node] = field(default_factory=list)
    left_out: list[Node] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)  # the GPU of each run

    def ready(self) -> Node | None:
        """The next waiting run whose parent neither waits nor runs."""
        busy = {node.name for node in (*self.waiting, *self.running.values())}
        return next((node for node in self.waiting if node.after not in busy), None)

    def place(self, node: Node) -> dict[str, str]:
        """The environment in which a run sees the GPU with the fewest others on it, and no other one."""
        if not self.gpus:
            return {}
        taken = [self.places[other.name] for other in self.running.values()]
        self.places[node.name] = min(self.gpus, key=taken.count)
        return {"CUDA_VISIBLE_DEVICES": self.places[node.name]}

    def fail(self, node: Node) -> None:
        """Give up a run, and those that would have started from it."""
        self.failed.append(node)
        self._leave_out(node)

    def _leave_out(self, parent: Node) -> None:
        for child in [other for other in self.waiting if other.after == parent.name]:
            self.waiting.remove(child)
            self.left_out.append(child)
            self._leave_out(child)


def run_study(study: Study, root: Path, *, jobs: int | None = None) -> None:
    """Run what is missing. Raises StudyError where runs failed (the others were finished), and as `check_study` does.

    `jobs` runs at a time, each on one GPU: by default as many as there are GPUs, or else CPU cores.
    """
    check_study(study, root)
    prepare(study, root)
    nodes = study.nodes()
    jobs = jobs or default_jobs()
    schedule = _Schedule([node for node in nodes if missing(root, node)], visible_gpus())
    console = Console()
    if schedule.waiting:
        told = f"{len(schedule.waiting)} of {len(nodes)} runs to go, {jobs} at a time; each writes {root}/<run>/{LOG}"
        console.print(told, highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with _terminable(), Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("runs", total=len(nodes), completed=len(nodes) - len(schedule.waiting))
        try:
            while schedule.waiting or schedule.running:
                _start(schedule, root, jobs)
                for node, code in _ended(schedule):
                    progress.advance(task)
                    console.print(_told(root, node, code), highlight=False, markup=False, soft_wrap=True)
                time.sleep(_POLL_SECONDS)
        except BaseException:
            _stop(schedule)
            raise
    if schedule.failed:
        logs = ", ".join(str(StudyFiles(root).run(node.name).log) for node in schedule.failed[:3])
        left = f", {len(schedule.left_out)} more left out that would start from them" if schedule.left_out else ""
        raise StudyError(
            f"{len(schedule.failed)} of {len(nodes)} runs failed{left}; the same command tries them again ({logs})"
        )


@contextmanager
def _terminable() -> Iterator[None]:
    """A cluster's SIGTERM ends a study as Ctrl-C does: its runs are stopped in order."""
    if threading.current_thread() is not threading.main_thread():  # others may not set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A signal that would come between the start of a worker and its being known comes just after."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: caught.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for late in caught[:1]:
        signal.raise_signal(late)


def check_study(study: Study, root: Path) -> None:
    """Before anything is run or written. Raises StudyError where the folder holds another study, and RecipeError for
    whatever a run would fail of."""
    _refuse_another(study, root)
    if any(missing(root, node) for node in study.nodes()):
        check_runs(study, root)


def prepare(study: Study, root: Path) -> None:
    """Make the study's folder, or check that it holds this very study: results of two must not mix."""
    _refuse_another(study, root)
    root.mkdir(parents=True, exist_ok=True)
    write_atomically(StudyFiles(root).plan, to_yaml(study))


def _refuse_another(study: Study, root: Path) -> None:
    if (StudyFiles(root).plan).is_file() and (changed := refused(load_study(StudyFiles(root).plan), study, root)):
        raise StudyError(
            f"{root} holds another study: {'; '.join(changed[:3])}; choose another folder with --out, or remove what "
            "is to be done again"
        )


def default_jobs() -> int:
    return len(visible_gpus()) or usable_cores()


def _start(schedule: _Schedule, root: Path, jobs: int) -> None:
    while len(schedule.running) < jobs and (node := schedule.ready()):
        schedule.waiting.remove(node)
        folder = root / node.name
        folder.mkdir(parents=True, exist_ok=True)
        threads = max(1, usable_cores() // jobs)
        environment = {"OMP_NUM_THREADS": str(threads), "TRANSFORMERS_VERBOSITY": "error"} | os.environ
        environment |= schedule.place(node)
        with RunFiles(folder).log.open("ab") as log, _undisturbed():
            command = [sys.executable, "-m", "balanced_thinking.study.worker", str(root), node.name]
            # A group of its own: Ctrl-C reaches this process alone, which then stops the others in order.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
            schedule.running[process] = node


def _ended(schedule: _Schedule) -> Iterator[tuple[Node, int]]:
    for process, node in list(schedule.running.items()):
        code = process.poll()
        if code is not None:
            del schedule.running[process]
            if code:
                schedule.fail(node)
            yield node, code


def _stop(schedule: _Schedule) -> None:
    for process in schedule.running:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_SECONDS
    for process in schedule.running:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def _told(root: Path, node: Node, code: int) -> str:
    """The run's end in one line: its accuracies, or why it failed and where its log lies."""
    folder = root / node.name
    if code:
        return f"{node.name}: failed ({_why(RunFiles(folder).log, code)}); see {RunFiles(folder).log}"
    accuracies = {name: read_summary(RunFiles(folder).evaluation(name)).accuracy for name in node.evaluations}
    return f"{node.name}: " + ", ".join(f"{name} {accuracy:.1%}" for name, accuracy in accuracies.items())


def _why(log: Path, code: int) -> str:
    """A failure's last words. What the system ended, for want of memory for instance, says nothing of it itself."""
    if code < 0:
        return f"ended by signal {-code}, {signal.strsignal(-code)}"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {code}"


def describe_plan(study: Study, root: Path, jobs: int | None = None) -> str:
    """The plan as text: every run with its state, and an estimate from what runs of the same kind took."""
    nodes, rows = study.nodes(), read_ledger(root, [])
    open_parts = {node.name: missing(root, node) for node in nodes}
    lines = [f"{len(nodes)} runs, {sum(not parts for parts in open_parts.values())} of them complete", ""]
    for node in nodes:
        state = ", ".join(open_parts[node.name]) or "complete"
        lines.append(f"  {node.name}  ({node.stage}{f' after {node.after}' if node.after else ''}): {state}")
    if any(open_parts.values()):
        lines += ["", time_to_go(nodes, open_parts, rows, jobs or default_jobs())]
    return "\n".join(lines)
