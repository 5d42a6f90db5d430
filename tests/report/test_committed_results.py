"""The committed results: their run folders still load, and give the figures of the committed tables."""

from __future__ import annotations

import csv
import tarfile
from pathlib import Path

import pytest

from balanced_thinking.report import write_report
from tests.conftest import REPOSITORY

RESULTS = REPOSITORY / "docs" / "results"


def unpack(study: str, folder: Path, *settings: str) -> Path:
    """The runs of a committed study, or of these settings of it only. Returns the study's folder."""
    with tarfile.open(RESULTS / study / "runs.tar.xz") as archive:
        members = archive.getmembers()
        root = members[0].name.partition("/")[0]
        for member in members:
            parts = member.name.split("/")
            if not settings or len(parts) == 2 or parts[1:2] in ([name] for name in settings):
                archive.extract(member, folder, filter="data")
    return folder / root


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def check_same_figures(found: list[dict[str, str]], committed: list[dict[str, str]]) -> None:
    """The same cells in the same order; numbers to a part in a billion, which another NumPy may round differently."""
    assert len(found) == len(committed) > 0
    for ours, theirs in zip(found, committed, strict=True):
        assert ours.keys() == theirs.keys()
        for name, cell in theirs.items():
            try:
                assert float(ours[name]) == pytest.approx(float(cell), rel=1e-9), (name, theirs)
            except ValueError:
                assert ours[name] == cell, theirs


def test_the_runs_of_a_committed_setting_give_its_committed_figures(tmp_path: Path) -> None:
    root = unpack("study", tmp_path, "qwen-ratio-150")
    write_report(root, tmp_path / "report.html", tmp_path / "report.md")
    for name in ("report.csv", "report-contrasts.csv"):
        committed = [row for row in read_rows(RESULTS / "study" / name) if row["setting"] == "qwen-ratio-150"]
        check_same_figures(read_rows(tmp_path / name), committed)


@pytest.mark.slow
@pytest.mark.parametrize("study", ["study", "study-2000"])
def test_all_committed_runs_give_their_committed_figures(study: str, tmp_path: Path) -> None:
    root = unpack(study, tmp_path)
    write_report(root, tmp_path / "report.html", tmp_path / "report.md")
    for name in ("report.csv", "report-contrasts.csv"):
        check_same_figures(read_rows(tmp_path / name), read_rows(RESULTS / study / name))
