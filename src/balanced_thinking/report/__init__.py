"""One self-contained page, and the same numbers as Markdown and CSV, from the files of runs; without torch."""

from __future__ import annotations

from pathlib import Path

from balanced_thinking.system.files import write_atomically

__all__ = ["write_report"]


def write_report(
    runs_dir: Path | str,
    html_path: Path | str,
    markdown_path: Path | str | None = None,
    figure_path: Path | str | None = None,
) -> Path:
    """Read `RUNS/[<setting>/]<arm>/seed-<k>/` (or `.../<arm>/`, or one run), write the report, return the page's path.

    Contrasts and margin come from `RUNS/study.yaml` where there is one. `markdown_path` is for the same numbers as
    Markdown. Beside it CSV files are written: the arms (`.csv`), their contrasts (`-contrasts.csv`) and, where there
    are several settings, each arm over all of them (`-settings.csv`). `figure_path` is for the main figure as SVG: the
    grid of arms and settings, or the paired differences. The page names what an unfinished run lacks. Raises ValueError
    when `runs_dir` holds no run, where two of these files would have the same path, and for a figure without contrasts.
    """
    # Imported here so that `balanced --help`, which imports this module, does not wait for matplotlib.
    from balanced_thinking.report.build import load_report
    from balanced_thinking.report.write.files import plan_files

    markdown, figure = (None if path is None else Path(path) for path in (markdown_path, figure_path))
    files = plan_files(Path(html_path), markdown, figure)
    report = load_report(Path(runs_dir))
    for path, text in {path: render(report) for path, render in files.items()}.items():  # all of them, or none
        if text is not None:
            _write_with_parents(path, text)
    return Path(html_path)


def _write_with_parents(path: Path, text: str) -> None:
    from balanced_thinking.system.text import replace_surrogates

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, replace_surrogates(text))  # two reports at once never show half a page
