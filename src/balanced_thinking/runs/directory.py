"""The run directory: a run explains itself and is never overwritten silently.

RUN/config.yaml        the resolved recipe
RUN/provenance.json    arm, seed, versions, commit, device, command, times
RUN/metrics.jsonl      one object a logging step
RUN/model/             the trained model (or adapter) and its processor
RUN/eval/<label>/      predictions.jsonl, summary.json; the label is <data>-<split>
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from balanced_thinking.config.errors import BalancedThinkingError
from balanced_thinking.system.files import write_atomically
from balanced_thinking.system.process import utc_now

_VERSIONED = ("balanced-thinking", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers")


class RunExistsError(BalancedThinkingError, FileExistsError):
    """The folder already holds a run."""


def refuse_existing_run(out: Path, *, resume: bool) -> None:
    """Raises RunExistsError where it holds a run that is not to be resumed, NotADirectoryError for no folder."""
    if (file := next((place for place in (out, *out.parents) if place.is_file()), None)) is not None:
        raise NotADirectoryError(f"{file} is a file, not a folder for runs; choose another folder with --out")
    if (out / "config.yaml").exists() and not resume:
        raise RunExistsError(
            f"{out} already holds a run; add --resume to continue it, or choose another folder with --out"
        )


def create_run(out: Path, config_yaml: str, about: dict[str, Any], *, resume: bool = False) -> Path:
    """Make (or, with `resume`, reopen) the run directory and write what is known before training."""
    refuse_existing_run(out, resume=resume)
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "config.yaml", config_yaml)
    provenance = {
        **about,
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": _commit(),
        "python": platform.python_version(),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        "versions": {name: metadata.version(name) for name in _VERSIONED},
        "started": utc_now(),
        "finished": None,
        "earlier": _earlier(out / "provenance.json"),
    }
    write_atomically(out / "provenance.json", json.dumps(provenance, indent=2) + "\n")
    return out


def discard_failed_start(out: Path) -> None:
    """Free the folder of a run that failed before it had logged or saved anything, for the start that mends it."""
    metrics = out / "metrics.jsonl"
    if not out.is_dir() or any(out.glob("checkpoints/checkpoint-*")) or (metrics.is_file() and metrics.stat().st_size):
        return
    for name in ("config.yaml", "provenance.json"):
        (out / name).unlink(missing_ok=True)


def _earlier(path: Path) -> list[dict[str, Any]]:
    """How this run was started before it was resumed, oldest first."""
    if not path.is_file():
        return []
    before = json.loads(path.read_text())
    return [*before.get("earlier", []), {key: before[key] for key in ("command", "commit", "started", "finished")}]


def finish_run(out: Path, **about: Any) -> None:
    """Add what is known after training."""
    path = out / "provenance.json"
    provenance = {**json.loads(path.read_text()), **about, "finished": utc_now()}
    write_atomically(path, json.dumps(provenance, indent=2) + "\n")


def is_finished(out: Path) -> bool:
    """Whether a run in this folder came to its end."""
    path = out / "provenance.json"
    return path.is_file() and json.loads(path.read_text()).get("finished") is not None


def steps_taken(out: Path) -> int | None:
    """The optimizer steps of a run that came to its end."""
    return json.loads((out / "provenance.json").read_text()).get("steps")


def _commit() -> str | None:
    """The commit of the code that runs, where it runs from a checkout and there is a git to ask."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None
