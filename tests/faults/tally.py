"""The results of the long forms: one JSON file, written after every trial, so that an interrupted run continues.

FAULTS_OUT names the file; without it nothing is kept. A trial is done again when the code of the package has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from balanced_thinking.system.files import write_atomically
from tests.conftest import REPOSITORY, named_output

SCALE = float(os.environ.get("FAULTS_SCALE", "1"))


def scaled_count(full: int) -> int:
    """The number of trials: `full`, or FAULTS_SCALE times as many, at least one."""
    return max(1, round(full * SCALE))


class Tally:
    """The trials of one section, by name."""

    def __init__(self, section: str) -> None:
        self.section = section
        self.path = named_output("FAULTS_OUT")
        about = {"source": source_digest()}
        kept = self._read_all().get(section, {})
        self.trials: dict[str, Any] = kept["trials"] if kept.get("about", {}).get("source") == about["source"] else {}

    def open_trials(self, count: int) -> Iterator[str]:
        """The numbers, as text, of the trials that are not done yet."""
        yield from (name for name in map(str, range(count)) if name not in self.trials)

    def add(self, name: str, **result: Any) -> None:
        self.trials[name] = result
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        about = {
            "source": source_digest(),
            "date": datetime.now(UTC).date().isoformat(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        }
        everything = self._read_all() | {self.section: {"about": about, "trials": self.trials}}
        write_atomically(self.path, _as_text(everything))

    def failures(self) -> dict[str, Any]:
        return {name: trial for name, trial in self.trials.items() if not trial["passed"]}

    def _read_all(self) -> dict[str, Any]:
        return json.loads(self.path.read_text()) if self.path is not None and self.path.is_file() else {}


def source_digest() -> str:
    """Of the package's source, so that results of other code are not mistaken for those of this one."""
    digest = hashlib.sha256()
    for path in sorted((REPOSITORY / "src").rglob("*.py")):
        digest.update(path.relative_to(REPOSITORY).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _as_text(everything: dict[str, Any]) -> str:
    """One line for each trial."""
    parts = []
    for section, values in sorted(everything.items()):
        lines = [f"{json.dumps(name)}: {json.dumps(trial)}" for name, trial in values["trials"].items()]
        about = json.dumps(values["about"])
        parts.append(f'{json.dumps(section)}: {{"about": {about}, "trials": {{\n' + ",\n".join(lines) + "\n}}")
    return "{\n" + ",\n".join(parts) + "\n}\n"
