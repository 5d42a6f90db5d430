"""Folders of runs that several tests read."""

from __future__ import annotations

from pathlib import Path

import pytest

from balanced_thinking.report.build import Report, load_report
from tests.report.synthetic import outcomes, write_run, write_study


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two arms with one seed: 10 items only scale-sft gets right, 1 only sft."""
    arm, base = outcomes(30, 10, 1, 59)
    write_run(tmp_path / "runs/sft/seed-0", base)
    write_run(tmp_path / "runs/scale-sft/seed-0", arm)
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two settings, four arms, two seeds."""
    return write_study(tmp_path_factory.mktemp("study") / "runs", seeds=2, n=60)


@pytest.fixture(scope="session")
def report(runs: Path) -> Report:
    """The report of `runs`."""
    return load_report(runs)
