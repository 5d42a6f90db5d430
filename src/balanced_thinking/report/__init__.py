"""One self-contained page, and the same numbers as Markdown, from the files of runs; without torch."""

from __future__ import annotations

from pathlib import Path

__all__ = ["write_report"]


def write_report(runs_dir: Path | str, html_path: Path | str, markdown_path: Path | str | None = None) -> Path:
    """Read `RUNS/<arm>/seed-<k>/` (or `RUNS/<arm>/`, or one run) and write the report; returns the path of the page.

    With `markdown_path`, the same numbers go there as Markdown, and the table of arms beside it as `.csv`. Whatever an
    unfinished run lacks is told on the page. Raises ValueError when `runs_dir` holds no run.
    """
    # Imported here so that `balanced --help`, which imports this module, does not wait for matplotlib.
    from balanced_thinking.report.figures import draw_curves
    from balanced_thinking.report.markdown import render_csv, render_markdown
    from balanced_thinking.report.page import render_page
    from balanced_thinking.report.runs import load_runs
    from balanced_thinking.report.samples import choose_samples
    from balanced_thinking.report.tables import make_tables

    root = Path(runs_dir)
    runs = load_runs(root)
    tables = make_tables(runs)
    samples = choose_samples(runs, tables.arms, tables.main_split, root)
    page = _write(Path(html_path), render_page(tables, draw_curves(runs, tables.arms), samples))
    if markdown_path is not None:
        _write(Path(markdown_path), render_markdown(tables))
        rows = [row for split in tables.splits.values() for row in split]
        _write(Path(markdown_path).with_suffix(".csv"), render_csv(rows))
    return page


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
