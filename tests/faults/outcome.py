"""What a training leaves, in a form that can be compared: every tensor, state and logged number, but no clock."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

# Time, and what is made of it. `TrainerControl` holds what was about to happen at the moment of a save, and
# `train_loss` is transformers' mean over the steps since the last start.
_CLOCKS = re.compile(r"runtime|per_second|step_time|training_clock|_seconds|TrainerControl|train_loss")
# Files that are not compared byte by byte: they hold paths or times, or describe the others.
_UNCOMPARED = {"training_args.bin", "manifest.json", "README.md", "trainer_state.json"}
_STEP = re.compile(r"checkpoint-(\d+)")


def read_outcome(run: Path) -> dict[str, str]:
    """Name -> digest or text of what a finished run in `run` holds: model, last checkpoint, metrics, state."""
    found = {f"model/{name}": digest for name, digest in _digests(run / "model", run).items()}
    steps = checkpoint_steps(run)
    found["checkpoints"] = str(steps)
    if steps:
        last = run / "checkpoints" / f"checkpoint-{steps[-1]}"
        found |= {f"checkpoint/{name}": digest for name, digest in _digests(last, run).items()}
        found["checkpoint/trainer_state.json"] = _state_text(last / "trainer_state.json").replace(str(run), "RUN")
    rows = (run / "metrics.jsonl").read_text().splitlines()
    found["metrics"] = "\n".join(json.dumps(_without_clocks(json.loads(row)), sort_keys=True) for row in rows)
    about = json.loads((run / "provenance.json").read_text())
    found["provenance"] = str({key: about.get(key) for key in ("steps", "tokens", "examples", "dropped", "seed")})
    return found


def differences(run: Path, reference: dict[str, str]) -> list[str]:
    """The names of what differs; a file that one of them lacks differs."""
    try:
        found = read_outcome(run)
    except (OSError, ValueError) as error:
        return [f"unreadable: {error}"]
    return sorted(name for name in found.keys() | reference.keys() if found.get(name) != reference.get(name))


def checkpoint_steps(run: Path) -> list[int]:
    named = (_STEP.fullmatch(place.name) for place in (run / "checkpoints").glob("checkpoint-*"))
    return sorted(int(found[1]) for found in named if found)


def unfinished_folders(run: Path) -> list[Path]:
    """Staging folders: those of a save that is under way, or that a kill has cut off."""
    return sorted([*run.glob(".saving-*"), *run.glob("checkpoints/.saving-*")])


def half_written_checkpoints(run: Path) -> list[str]:
    """Checkpoints under a final name that are not complete or not valid."""
    from balanced_thinking.runs.manifest import find_damage

    return sorted(place.name for place in (run / "checkpoints").glob("checkpoint-*") if find_damage(place))


def _digests(folder: Path, run: Path) -> dict[str, str]:
    """Relative name -> SHA-256 of the content, in which the run's own path is written RUN."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in _UNCOMPARED:
            content = path.read_bytes().replace(str(run).encode(), b"RUN")
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return found


def _state_text(path: Path) -> str:
    return json.dumps(_without_clocks(json.loads(path.read_text())), sort_keys=True)


def _without_clocks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_clocks(inner) for key, inner in value.items() if not _CLOCKS.search(key)}
    if isinstance(value, list):
        return [_without_clocks(inner) for inner in value]
    return value
