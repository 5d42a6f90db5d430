"""One self-contained page, and the same numbers as Markdown and CSV, from the files of runs; without torch."""

from __future__ import annotations

from pathlib import Path

from balanced_thinking.system.files import write_atomically

__all__ = ["write_report"]


def write_report(runs_dir: Path | str, html_path: Path | str, markdown_path: Path | str | None = None) -> Path:
    """Read `RUNS/[<setting>/]<arm>/seed-<k>/` (or `.../<arm>/`, or one run), write the report, return the page's path.

    Contrasts and margin come from `RUNS/study.yaml` where there is one. `markdown_path` is for the same numbers as
    Markdown. Beside it two CSV files are written: the arms (`.csv`) and their contrasts (`-contrasts.csv`). The page
    names what an unfinished run lacks. Raises ValueError when `runs_dir` holds no run, and where two of these files
    would have the same path.
    """
    # Imported here so that `balanced --help`, which imports this module, does not wait for matplotlib.
    from balanced_thinking.config.errors import RecipeError
    from balanced_thinking.report.build import load_report
    from balanced_thinking.report.write.markdown import render_markdown
    from balanced_thinking.report.write.page import render_page
    from balanced_thinking.report.write.spreadsheet import all_arm_rows, render_arms_csv, render_contrasts_csv

    texts = {Path(html_path): render_page}
    if markdown_path is not None:
        path = Path(markdown_path)
        texts[path] = render_markdown
        texts[path.with_suffix(".csv")] = lambda report: render_arms_csv(all_arm_rows(report))
        texts[path.with_name(f"{path.stem}-contrasts.csv")] = render_contrasts_csv
        if len(texts) < 4:
            raise RecipeError(
                f"the page {html_path}, the Markdown {markdown_path} and the .csv beside it would be the "
                "same file; choose names that end in .html and .md with --html and --markdown"
            )
    report = load_report(Path(runs_dir))
    for path, text in {path: render(report) for path, render in texts.items()}.items():  # all of them, or none
        _write_with_parents(path, text)
    return Path(html_path)


def _write_with_parents(path: Path, text: str) -> None:
    from balanced_thinking.system.text import replace_surrogates

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, replace_surrogates(text))  # two reports at once never show half a page
