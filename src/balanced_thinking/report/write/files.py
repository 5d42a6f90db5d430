"""Which files a report consists of, and how each is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.report.build import Report
from balanced_thinking.report.draw.svg import to_standalone_svg
from balanced_thinking.report.write.markdown import render_markdown
from balanced_thinking.report.write.page import render_page
from balanced_thinking.report.write.spreadsheet import (
    all_arm_rows,
    render_arms_csv,
    render_contrasts_csv,
    render_settings_csv,
)

Render = Callable[[Report], str | None]  # None where a report has nothing for the file


def plan_files(html: Path, markdown: Path | None, figure: Path | None) -> dict[Path, Render]:
    """The files by path, each with what writes its text. Raises RecipeError where two would have the same path."""
    files: list[tuple[Path, Render]] = [(html, render_page)]
    if figure is not None:
        files.append((figure, render_figure))
    if markdown is not None:
        files += [
            (markdown, render_markdown),
            (markdown.with_suffix(".csv"), lambda report: render_arms_csv(all_arm_rows(report))),
            (markdown.with_name(f"{markdown.stem}-contrasts.csv"), render_contrasts_csv),
            (markdown.with_name(f"{markdown.stem}-settings.csv"), render_settings_csv),
        ]
    if len(dict(files)) < len(files):
        named = ", ".join(str(path) for path in (html, markdown, figure) if path is not None)
        raise RecipeError(
            f"of {named} and the .csv files beside the Markdown two would be the same file; choose names that end in "
            ".html and .md with --html and --markdown, and in .svg with --figure"
        )
    return dict(files)


def render_figure(report: Report) -> str:
    """The main figure as SVG. Raises RecipeError where no two arms can be compared."""
    if report.main_figure is None:
        raise RecipeError("these runs have no two arms to compare, so there is no figure; leave out --figure")
    return to_standalone_svg(report.main_figure)
