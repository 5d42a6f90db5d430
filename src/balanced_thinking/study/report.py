"""A study's reports: one page, Markdown and CSV for each setting, or one of all where there is a single one."""

from __future__ import annotations

from pathlib import Path

from balanced_thinking.report import write_report
from balanced_thinking.study.plan import Study


def write_study_report(study: Study, root: Path) -> Path:
    """Write `report.html`, `.md` and `.csv` below `root`, or below each setting's folder; returns the (last) page."""
    pages = [
        write_report(folder, folder / "report.html", folder / "report.md")
        for folder in ([root / setting for setting in study.settings] or [root])
    ]
    return pages[-1]
