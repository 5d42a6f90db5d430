"""Settings and runs below a folder."""

from __future__ import annotations

from pathlib import Path

from balanced_thinking.runs.find import find_settings
from tests.report.synthetic import SETTINGS, write_study


def test_settings_are_those_of_the_study_else_any_folder_of_arms(tmp_path: Path) -> None:
    runs = write_study(tmp_path / "runs", seeds=1, n=4)
    assert find_settings(runs, ("ratio-40", "ratio-10", "absent")) == [
        (name, runs / name) for name in ("ratio-40", "ratio-10")
    ]
    assert [name for name, _ in find_settings(runs, ())] == list(SETTINGS)
    assert find_settings(runs / "ratio-10", ()) == [(None, runs / "ratio-10")]
