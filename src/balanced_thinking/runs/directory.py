"""The run directory: a run explains itself and is never overwritten silently."""

from __future__ import annotations

import errno
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from balanced_thinking.config.errors import UsageError
from balanced_thinking.config.foreign_json import read_json_file
from balanced_thinking.runs.paths import RunFiles
from balanced_thinking.runs.records import Provenance, read_record, record_values
from balanced_thinking.system.files import write_atomically
from balanced_thinking.system.locks import hold_folder
from balanced_thinking.system.process import process_rank, utc_now

_VERSIONED = ("balanced-thinking", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers")


class RunExistsError(UsageError, FileExistsError):
    """The folder already holds a run."""


class NotARunFolderError(UsageError, NotADirectoryError):
    """A file is where a run's folder should be."""


def refuse_existing_run(out: Path, *, resume: bool) -> None:
    """Raises RunExistsError where it holds a run that is not to be resumed, NotARunFolderError where it is a file."""
    if (file := next((place for place in (out, *out.parents) if place.is_file()), None)) is not None:
        raise NotARunFolderError(f"{file} is a file, not a folder for runs; choose another folder with --out")
    if RunFiles(out).config.exists() and not resume:
        raise RunExistsError(
            f"{out} already holds a run; add --resume to continue it, or choose another folder with --out"
        )


@contextmanager
def hold_run(out: Path) -> Iterator[None]:
    """Keep other processes from training in `out`: held by the first of several ranks. Raises FolderBusyError."""
    if process_rank():
        yield
        return
    with hold_folder(out, "training"):
        yield


def create_run(out: Path, config_yaml: str, about: dict[str, Any], *, resume: bool = False) -> Path:
    """Make (or, with `resume`, reopen) the run directory and write what is known before training."""
    refuse_existing_run(out, resume=resume)
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(RunFiles(out).config, config_yaml)
    provenance = Provenance(
        **about,
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        working_folder=os.path.relpath(Path.cwd(), out.resolve()),
        commit=_checkout_commit(),
        python=platform.python_version(),
        machine={"processor": platform.machine(), "cores": os.cpu_count()},
        versions={name: metadata.version(name) for name in _VERSIONED},
        started=utc_now(),
        earlier=_earlier_starts(out),
    )
    _write_provenance(out, provenance)
    return out


@contextmanager
def undo_failed_start(out: Path, *, except_after: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Free the folder of a run that fails before it has logged or saved anything, for the start that follows.

    Only for who holds the folder (`hold_run`): what it did not contain before was then written by this process.

    Args:
        except_after: errors that say to continue with --resume, for which the recipe must stay there.
    """
    held_a_run = RunFiles(out).config.exists()
    try:
        yield
    except Exception as error:  # not Ctrl-C, after which --resume continues
        if not held_a_run and not process_rank() and not isinstance(error, except_after):
            _discard_start(out)
        raise


def _discard_start(out: Path) -> None:
    files = RunFiles(out)
    logged = files.metrics.is_file() and files.metrics.stat().st_size
    if not out.is_dir() or any(files.checkpoints.glob("checkpoint-*")) or logged:
        return
    for path in (files.config, files.provenance):
        path.unlink(missing_ok=True)


def finish_run(out: Path, **about: Any) -> None:
    """Add what is known after training: fields of `Provenance`. Raises FileNotFoundError where the run has vanished."""
    provenance = read_provenance(out)
    if provenance is None:  # create_run wrote it
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(RunFiles(out).provenance))
    _write_provenance(out, replace(provenance, **about, finished=utc_now()))


def is_finished(out: Path) -> bool:
    """Whether a run in this folder is complete."""
    provenance = read_provenance(out)
    return provenance is not None and provenance.finished is not None


def read_provenance(out: Path) -> Provenance | None:
    """What a run recorded; None where there is nothing. Raises RecordError for what this version cannot read."""
    path = RunFiles(out).provenance
    return read_record(Provenance, read_json_file(path), str(path)) if path.is_file() else None


def _write_provenance(out: Path, provenance: Provenance) -> None:
    values = record_values(provenance, keep_empty=False)
    write_atomically(RunFiles(out).provenance, json.dumps(values, indent=2) + "\n")


def _earlier_starts(out: Path) -> list[dict[str, Any]]:
    """How this run was started before it was resumed, oldest first."""
    before = read_provenance(out)
    if before is None:
        return []
    kept = ("command", "working_folder", "commit", "started", "finished", "own_functions")
    return [*before.earlier, {key: value for key in kept if (value := getattr(before, key)) != {}}]


def _checkout_commit() -> str | None:
    """The commit of the code that runs; None where it does not run from a checkout, or git is not installed."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None
