"""Running a study: the missing parts of every run, each run in a process of its own, several at a time.

This module decides which run is next; an executor starts it, here or on a cluster (`executors/`).

A study's folder holds `study.yaml`, `ledger.jsonl` and the run directories `[<setting>/]<arm>/seed-<k>/`. After a kill
at any moment the same command continues: a run with a checkpoint from there, any other from its start.
"""

from __future__ import annotations

import logging
import re
import signal
import time
from contextlib import AbstractContextManager
from itertools import combinations
from pathlib import Path

from balanced_thinking.config.errors import BalancedThinkingError, RecipeError, UsageError
from balanced_thinking.runs.directory import is_finished
from balanced_thinking.runs.evaluations import read_summary
from balanced_thinking.runs.ledger import read_ledger
from balanced_thinking.runs.paths import LOG, StudyFiles
from balanced_thinking.runs.records import BASELINE_ARM
from balanced_thinking.study.changes import refused_changes
from balanced_thinking.study.estimate import describe_time_left
from balanced_thinking.study.executors.interface import Executor
from balanced_thinking.study.executors.local import LocalExecutor
from balanced_thinking.study.load import load_study, to_yaml
from balanced_thinking.study.plan import PlannedRun, Study
from balanced_thinking.study.schedule import RunSchedule
from balanced_thinking.study.stopping import StudyStop
from balanced_thinking.study.unrecorded import record_unrecorded_runs
from balanced_thinking.study.worker import missing_parts
from balanced_thinking.system.files import write_atomically
from balanced_thinking.system.locks import hold_folder
from balanced_thinking.system.progress import count_progress
from balanced_thinking.system.signals import defer_signals
from balanced_thinking.training.recipe import HARMLESS_KEYS, describe_changes

logger = logging.getLogger(__name__)
_POLL_SECONDS = 0.2
_OUR_ERROR = re.compile(r"^balanced_thinking(\.\w+)+: ")  # which Python writes before an error's message


class StudyError(BalancedThinkingError, RuntimeError):
    """Some runs of a study failed, or its folder holds another study. The message says which, and where to look."""


class OtherStudyError(UsageError, StudyError):
    """The folder holds another study."""


def run_study(
    study: Study,
    root: Path,
    *,
    jobs: int | None = None,
    max_hours: float | None = None,
    executor: Executor | None = None,
) -> None:
    """Run what is missing, `jobs` runs at a time, each on one GPU.

    `jobs` is by default what the executor has room for: on this machine the number of GPUs, or of CPU cores where there
    is no GPU. `executor` is an entered one, and this machine by default. Raises StudyError where runs failed (after the
    others have finished), FolderBusyError where another process runs a study there, and what `check_study` raises. A
    signal, or the end of the time budget, makes all runs save and stop; then it raises StoppedEarly.
    """
    executor = executor or LocalExecutor()
    check_study(study, root, executor)
    with hold_study(root):
        _run_alone(study, root, executor, jobs or executor.count_slots(), max_hours)


def hold_study(root: Path) -> AbstractContextManager[None]:
    """Keep other processes from running a study in `root`. Raises FolderBusyError."""
    return hold_folder(root, "running a study")


def _run_alone(study: Study, root: Path, executor: Executor, jobs: int, max_hours: float | None) -> None:
    """`run_study` by the only process that works in `root`."""
    prepare_folder(study, root)
    runs = study.planned_runs()
    record_unrecorded_runs(root, runs)
    schedule = RunSchedule([run for run in runs if missing_parts(root, run)])
    ended = len(runs) - len(schedule.waiting)
    if schedule.waiting:
        to_go = f"{len(schedule.waiting)} of {len(runs)} runs to go"
        logger.info("%s, %d at a time; each writes %s/<run>/%s", to_go, jobs, root, LOG)
    stop = StudyStop(schedule.running, max_hours)
    progress = count_progress("runs", len(runs), done=ended, at_once=True, lines=False)
    with stop.stopping_workers(), progress as advance:
        while schedule.waiting or schedule.running:
            _start_workers(schedule, root, executor, jobs)
            stop.raise_if_asked()
            for run, code in schedule.collect_ended():
                ended += 1
                logger.info("%d of %d: %s", ended, len(runs), _result_line(root, run, code))
                advance()
            time.sleep(_POLL_SECONDS)
    if schedule.failed:
        logs = ", ".join(str(StudyFiles(root).run(run.name).log) for run in schedule.failed[:3])
        left = f", {len(schedule.left_out)} more that start from them were left out" if schedule.left_out else ""
        raise StudyError(
            f"{len(schedule.failed)} of {len(runs)} runs failed{left}; the same command tries them again ({logs})"
        )


def check_study(study: Study, root: Path, executor: Executor | None = None) -> None:
    """Check a study before anything is run or written.

    Raises StudyError where the folder holds another study, and RecipeError for everything that would make a run fail.
    """
    _refuse_conflicting_study(study, root)
    _refuse_equal_arms(study, root)
    if any(missing_parts(root, run) for run in study.planned_runs()):
        (executor or LocalExecutor()).check(study, root)
    _refuse_baseline_of_scale(study)  # after the check of keys: a misspelt `weighting` leaves the default


def _refuse_equal_arms(study: Study, root: Path) -> None:
    """Raises RecipeError where two arms to train have one recipe: from the same seed they would be the same model."""
    groups: dict[tuple[object, ...], list[PlannedRun]] = {}
    for run in study.planned_runs():
        if not is_finished(root / run.name):
            groups.setdefault((run.setting, run.seed, run.after), []).append(run)
    for one, other in (pair for runs in groups.values() for pair in combinations(runs, 2)):
        if not describe_changes(one.recipe, other.recipe, HARMLESS_KEYS | {"arm"}):
            raise RecipeError(
                f"{other.title} and arm {one.arm!r} have the same recipe, so they would train the same model twice; "
                "give one of them other settings, such as training: {weighting: uniform} for plain SFT, or leave it out"
            )


def _refuse_baseline_of_scale(study: Study) -> None:
    """Raises RecipeError where the arm `sft`, which reports take for plain SFT, is trained with SCALe."""
    for run in study.planned_runs():
        if run.arm == BASELINE_ARM and run.recipe.training.get("weighting") == "scale":
            raise RecipeError(
                f"{run.title} is trained with SCALe, the default, but reports take {BASELINE_ARM!r} for plain SFT; set "
                "training: {weighting: uniform}, or give the arm another name"
            )


def prepare_folder(study: Study, root: Path) -> None:
    """Create the study's folder and write its plan. Raises StudyError where the folder holds another study."""
    _refuse_conflicting_study(study, root)
    root.mkdir(parents=True, exist_ok=True)
    write_atomically(StudyFiles(root).plan, to_yaml(study))


def _refuse_conflicting_study(study: Study, root: Path) -> None:
    plan = StudyFiles(root).plan
    # Without a plan, as where only runs were copied here, they still know their own recipes.
    if changed := refused_changes(load_study(plan) if plan.is_file() else study, study, root):
        raise OtherStudyError(
            f"{root} holds another study: {'; '.join(changed[:3])}; choose another folder with --out, or remove the "
            "runs to do again"
        )


def _start_workers(schedule: RunSchedule, root: Path, executor: Executor, jobs: int) -> None:
    while len(schedule.running) < jobs and (run := schedule.next_ready()):
        schedule.waiting.remove(run)
        (root / run.name).mkdir(parents=True, exist_ok=True)
        with defer_signals():
            worker = executor.start(root, run, jobs, schedule.running)
            schedule.running[worker] = run


def _result_line(root: Path, run: PlannedRun, code: int) -> str:
    """How a run ended, in one line: its accuracies, or why it failed and where its log is."""
    files = StudyFiles(root).run(run.name)
    if code:
        return f"{run.name}: failed ({_failure_reason(files.log, code)}); see {files.log}"
    accuracies = {name: read_summary(files.evaluation(name)).accuracy for name in run.evaluations}
    return f"{run.name}: " + ", ".join(f"{name} {accuracy:.1%}" for name, accuracy in accuracies.items())


def _failure_reason(log: Path, code: int) -> str:
    """The last line of the log, without the place of an error class of ours.

    A run that the system ended, for example for lack of memory, has not logged why.
    """
    if code < 0:
        return f"ended by signal {-code}, {signal.strsignal(-code)}"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return _OUR_ERROR.sub("", lines[-1]) if lines else f"exit code {code}"


def describe_plan(study: Study, root: Path, jobs: int | None = None) -> str:
    """The plan as text: every run with its state, and an estimate from the times of similar runs.

    `jobs` run at the same time, by default as many as this machine has room for.
    """
    runs, rows = study.planned_runs(), read_ledger(root, [])
    open_parts = {run.name: missing_parts(root, run) for run in runs}
    lines = [f"{len(runs)} runs, {sum(not parts for parts in open_parts.values())} of them complete", ""]
    for run in runs:
        state = ", ".join(open_parts[run.name]) or "complete"
        lines.append(f"  {run.name}  ({run.stage}{f' after {run.after}' if run.after else ''}): {state}")
    if any(open_parts.values()):
        lines += ["", describe_time_left(runs, open_parts, rows, jobs or LocalExecutor().count_slots())]
    return "\n".join(lines)
