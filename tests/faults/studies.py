"""A study that is killed: the command itself, one of its workers, or all of them."""

from __future__ import annotations

import csv
import json
import random
import re
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import yaml

from tests.faults.forked import TIMEOUT_SECONDS, Forked, prepare_parent
from tests.forked import popen_forked
from tests.study.helpers import SMALL, fingerprints

# Columns of the table, and keys of the ledger, that are times.
_TIMES = re.compile(r"seconds|time|started|peak_mib")
_POLL_SECONDS = 0.0005


class StudyKill(NamedTuple):
    """When (`seconds` after the start, or after the first sign of a save) and what is killed."""

    who: str  # study, worker or both
    seconds: float
    save: str = ""  # a pattern for the path of a staging folder whose appearance starts the clock

    def describe(self) -> str:
        return f"{self.who}, {self.seconds * 1000:.0f} ms after {self.save or 'the start'}"


class KilledStudy:
    """A study in `folder` with `real` workers, each a new Python, or with forked ones."""

    def __init__(self, folder: Path, *, real: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.root, self.real = folder, folder / "study", real
        (folder / "plan.yaml").write_text(yaml.safe_dump(SMALL))
        self.words = ["study", str(folder / "plan.yaml"), "--out", str(self.root), "--jobs", "2"]

    def call(self) -> int:
        from balanced_thinking.cli import main

        if not self.real:
            subprocess.Popen = popen_forked  # the workers have what this process has imported
        return main(self.words)

    def run(self, kill: StudyKill | None = None) -> tuple[int, bool, str]:
        """(exit code, whether a save was under way when it was killed, what it wrote)."""
        with Forked(self.call, self.folder / "output.txt") as child:
            inside = bool(kill) and self._kill(child, kill)
            try:
                code = child.wait()
            finally:
                if kill is None:
                    kill_all(self._workers(child.pid))
            return code, inside, child.text()

    def _kill(self, child: Forked, kill: StudyKill) -> bool:
        before = self.staged()
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while kill.save and not any(re.search(kill.save, str(place)) for place in self.staged() - before):
            if child.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        end = time.monotonic() + kill.seconds
        while time.monotonic() < end and child.poll() is None:
            time.sleep(min(0.001, max(0.0, end - time.monotonic())))
        workers = self._workers(child.pid)
        if kill.who in ("study", "both"):
            child.kill()
        if kill.who in ("worker", "both"):
            kill_all(workers if kill.who == "both" else workers[:1])
        return bool(self.staged() - before)

    def staged(self) -> set[Path]:
        return {*self.root.glob("*/seed-*/.saving-*"), *self.root.glob("*/seed-*/checkpoints/.saving-*")}

    def _workers(self, pid: int) -> list[psutil.Process]:
        try:
            return psutil.Process(pid).children()
        except psutil.NoSuchProcess:
            return []


def kill_all(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def read_tables(root: Path) -> dict[str, str]:
    """Everything of a finished study that is no time: predictions, losses, the report's table and the ledger."""
    found = dict(fingerprints(root))
    with (root / "report.csv").open(newline="") as file:
        found["report.csv"] = str([_without_times(row) for row in csv.DictReader(file)])
    return found | {"ledger.jsonl": str(read_ledger_rows(root))}


def read_ledger_rows(root: Path) -> list[str]:
    """In an order that does not depend on which run ended first."""
    rows = [json.loads(line) for line in (root / "ledger.jsonl").read_text().splitlines()]
    return sorted(json.dumps(_without_times(row), sort_keys=True) for row in rows)


def _without_times(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not _TIMES.search(key)}


def prepare_studies(folder: Path) -> None:
    """Import in this process what studies need."""
    words = ["sft", "--model", "tiny:qwen2_5_vl", "--data", "world", "--data_options.n", "2", "--max_steps", "1"]
    prepare_parent([*words, "--out", str(folder / "warm"), "--per_device_train_batch_size", "2"])
    import balanced_thinking.evaluation.run
    import balanced_thinking.report
    import balanced_thinking.study.worker  # noqa: F401


def random_kill(rng: random.Random, number: int, seconds: float) -> StudyKill:
    """Every third trial at any time, the others in a save."""
    who = ("study", "worker", "both")[number % 3]
    if number // 3 % 3 == 0:
        return StudyKill(who, rng.uniform(0.1 * seconds, seconds))
    save = rng.choice(
        [r"/sft/.*checkpoint-1", r"/sft/.*checkpoint-2", r"/sft/.*\.saving-model", r"grpo/.*checkpoint-1"]
    )
    return StudyKill(who, rng.uniform(0, 0.05), save)
