"""A study's report: one page of all its settings, with the same numbers as Markdown and CSV beside it."""

from __future__ import annotations

from pathlib import Path

from balanced_thinking.report import write_report
from balanced_thinking.study.plan import Study


def write_study_report(study: Study, root: Path) -> Path:
    """Write `report.html`, `.md`, `.csv` and `-contrasts.csv` below `root`, whose `study.yaml` is `study`'s."""
    return write_report(root, root / "report.html", root / "report.md")
