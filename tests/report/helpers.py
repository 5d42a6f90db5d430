"""What several tests of the report share: a page as a browser sees it, and comparisons of given counts."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

from balanced_thinking.report import write_report
from balanced_thinking.report.compare.contrasts import Contrast
from balanced_thinking.report.compare.plan import Plan
from balanced_thinking.report.compare.tables import make_tables
from balanced_thinking.runs.load import load_runs
from tests.report.synthetic import outcomes, write_run

SCRIPT = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Tags and attributes as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def values(self, attribute: str) -> list[str]:
        return [attrs[attribute] or "" for _, attrs in self.tags if attribute in attrs]


def check_only_script(text: str) -> None:
    """Exactly one script, allowed by its hash."""
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert text.count("<script") == 1
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'; " in html.unescape(text)


def report_of(runs: Path) -> str:
    return write_report(runs, runs.parent / "out" / "report.html").read_text(encoding="utf-8")


def compared(root: Path, seeds: list[tuple[int, int]], *, agree: int = 90, margin: float | None = None) -> Contrast:
    """scale-sft against sft, with these counts of items that only one of them got right, seed by seed."""
    for k, (only, other) in enumerate(seeds):
        arm, base = outcomes(agree - 70, only, other, 70)
        write_run(root / f"scale-sft/seed-{k}", arm)
        write_run(root / f"sft/seed-{k}", base)
    (contrast,) = make_tables(load_runs(root), Plan(margin=margin)).contrasts
    return contrast


def write_items(folder: Path, digests: list[str]) -> None:
    """A run whose predictions have these digests. All of them are right where the arm is scale-sft."""
    run = write_run(folder, [folder.parent.name == "scale-sft"] * len(digests))
    place = run / "eval" / "world-test" / "predictions.jsonl"
    rows = [json.loads(line) for line in place.read_text().splitlines()]
    rows = [row | {"digest": digest} for row, digest in zip(rows, digests, strict=True)]
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
