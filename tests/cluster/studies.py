"""A small study on a cluster, its processes, and what its results are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.faults.studies import read_tables
from tests.study.helpers import changed, workers

# Two runs go on at a time, one of them is the parent of a third, and there are steps between two checkpoints.
STUDY = changed(
    arms={"scale-sft": {"training": {"weighting": "scale"}}},
    stages={"sft": {"training": {"max_steps": 6, "save_steps": 2}}},
)
# Of one start: times, and transformers' mean of the loss over the steps since then.
_OF_ONE_START = re.compile(r"seconds|per_second|runtime|time|train_loss")


class ClusterStudy:
    """A study in `folder`, started with `words` such as `--executor ray`."""

    def __init__(self, folder: Path, *words: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.root = folder, folder / "study"
        self.plan, self.log = folder / "plan.yaml", folder / "output.txt"
        self.plan.write_text(yaml.safe_dump(STUDY))
        self.words = words
        self.drivers: list[subprocess.Popen[bytes]] = []

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "balanced_thinking.cli", "study", str(self.plan), "--out", str(self.root)]
        with self.log.open("ab") as log:
            driver = subprocess.Popen([*command, *self.words, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.drivers.append(driver)
        return driver

    def run(self, *words: str, code: int = 0) -> str:
        """Run it to its end. Returns what this start wrote. Raises AssertionError for another exit code."""
        before = len(self.text())
        found = self.start(*words).wait(timeout=600)
        assert found == code, f"{found}, expected {code}: {self.text()[-3000:]}"
        return self.text()[before:]

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def workers(self) -> list[psutil.Process]:
        return workers(self.root)

    def results(self) -> dict[str, Any]:
        """Predictions to the byte, metrics, the report's table, the ledger: all that is not of one start alone."""
        metrics = {
            str(path.relative_to(self.root)): read_metrics(path) for path in self.root.glob("*/seed-*/metrics.jsonl")
        }
        return read_tables(self.root) | metrics


def read_metrics(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in row.items() if not _OF_ONE_START.search(key)} for row in rows]
