"""What a folder of results holds already: the results of this very evaluation, which are returned, or what belongs to
another one, finished or not, which stays."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from balanced_thinking.config.errors import FileInTheWayError
from balanced_thinking.evaluation.results import read_results
from balanced_thinking.evaluation.resume import OtherAnswers, evaluation_ranks, find_other_answers
from balanced_thinking.evaluation.task import Task
from balanced_thinking.runs.records import RecordError, Summary

logger = logging.getLogger(__name__)
_SAME_SETTINGS = "the same settings, with other weights or prompts, other items or another version of balanced-thinking"
_LONGEST_VALUE = 200


def reusable_results(task: Task, folder: Path | None, overwrite: bool) -> Summary | None:
    """The finished results of this very task. Raises FileExistsError where the folder holds others."""
    if folder is None or overwrite:
        return None
    try:
        summary = read_results(folder)
    except RecordError as error:
        raise FileInTheWayError(f"{error}; choose another --out, or replace these results with --overwrite") from error
    if summary is None:
        return None
    if summary.task == task.identity:
        return summary
    difference = _describe_difference(summary, task)
    raise FileInTheWayError(
        f"{folder} already holds results of another evaluation ({difference}); choose another --out, or replace them "
        "with --overwrite"
    )


def refuse_other_answers(tasks: Iterable[tuple[Task, Path | None]], *, overwrite: bool) -> None:
    """Raises FileExistsError, on all ranks, where a folder holds answers of another evaluation that was stopped.

    With `overwrite` they are only named: they are deleted when the task begins.
    """
    refused: list[str | None] = [None]
    if evaluation_ranks().is_main_process:
        refused = [_find_refusal(tasks, overwrite)]
    if (message := broadcast_object_list(refused)[0]) is not None:
        raise FileInTheWayError(message)


def _find_refusal(tasks: Iterable[tuple[Task, Path | None]], overwrite: bool) -> str | None:
    for task, folder in tasks:
        if folder is None or (others := find_other_answers(folder, task.identity)) is None:
            continue
        answers = "1 answer" if others.number == 1 else f"{others.number:,} answers"
        held = f"{folder} holds {answers} of another evaluation, which is not finished ({_differs(others, task)})"
        if not overwrite:
            return (
                f"{held}; finish it with the command that began it, choose another --out, or delete its answers with "
                "--overwrite"
            )
        logger.warning("%s: they are deleted", held)
    return None


def _differs(others: OtherAnswers, task: Task) -> str:
    if not others.settings:
        return "an earlier version began it, which did not record its settings"
    return _first_difference(others.settings, task.settings) or _SAME_SETTINGS


def _describe_difference(summary: Summary, task: Task) -> str:
    """Where the results differ from those of the task, as far as the summary says."""
    recorded = {name: str(getattr(summary, name)) for name in task.settings if hasattr(summary, name)}
    if (difference := _first_difference(recorded, task.settings)) is not None:
        return difference
    if summary.scorer_file.get("sha256") != task.scorer_file.get("sha256"):
        return f"the file of scorer {task.benchmark.scorer} has changed since"
    if summary.picture_budget != dict(task.picture_budget):
        return f"picture_budget was {summary.picture_budget or 'not stated'} and is {dict(task.picture_budget)}"
    return _SAME_SETTINGS


def _first_difference(before: Mapping[str, Any], now: Mapping[str, str]) -> str | None:
    for name, value in now.items():
        if name in before and (was := str(before[name])[:_LONGEST_VALUE]) != value[:_LONGEST_VALUE]:
            return f"{name} was {was or 'not stated'} and is {value}"
    return None
