"""The report's numbers as Markdown for a pull request or a notebook, and the table of arms as CSV."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields

from balanced_thinking.report.tables import ArmRow, Contrast, SeedContrast, Tables
from balanced_thinking.report.wording import (
    count,
    evidence,
    headline,
    limits,
    p_value,
    percent,
    points,
    power,
    rule,
    seconds,
    seed_name,
    span,
    times,
)

ARM_HEADER = [
    "arm",
    "seeds",
    "n",
    "accuracy",
    "95 % interval",
    "range over seeds",
    "malformed",
    "truncated",
    "think tokens",
    "answer tokens",
    "training",
    "relative to baseline",
]
CONTRAST_HEADER = ["arm", "baseline", "seed", "both", "only arm", "only baseline", "neither", "points", "p"]


def render_markdown(tables: Tables) -> str:
    """Verdicts, arms, families, differing settings, notes and limits."""
    blocks = ["# Balanced Thinking report", "## Verdict", *_verdict(tables.contrasts)]
    for split, rows in tables.splits.items():
        blocks += [f"## Arms on {escape(split)}", _table(ARM_HEADER, (_arm_cells(row) for row in rows))]
    if tables.families:
        rows_of_families = ([row.family, count(row.n), *map(percent, row.accuracies)] for row in tables.families)
        blocks += [
            f"## Accuracy by question family on {escape(str(tables.main_split))}",
            _table(["family", "items", *tables.arms], rows_of_families),
        ]
    differing = [row for row in tables.config if row.differs]
    if differing:
        settings = ([row.key, *(", ".join(values) for values in row.values)] for row in differing)
        blocks += ["## Settings that differ", _table(["key", *tables.arms], settings)]
    blocks += ["## Limits", _list([*limits(tables), *tables.notes])]
    return "\n\n".join(blocks) + "\n"


def render_csv(rows: Iterable[ArmRow]) -> str:
    """One line for each arm and split, numbers at full precision."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [field.name for field in fields(ArmRow)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        seed_range = " to ".join(str(share) for share in row.seed_range or ())
        writer.writerow({key: _inert(value) for key, value in asdict(row).items()} | {"seed_range": seed_range})
    return buffer.getvalue()


def escape(text: str) -> str:
    """Text that Markdown and the HTML inside it take literally, on one line."""
    return re.sub(r"([\\`*_{}\[\]|#~])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _verdict(contrasts: Sequence[Contrast]) -> list[str]:
    if not contrasts:
        return ["Nothing to compare: it takes two arms with predictions of the same items."]
    told = [f"**{escape(headline(c))}** {escape(evidence(c))} {escape(power(c))}" for c in contrasts]
    rows = ([c.arm, c.base, *_seed_cells(s)] for c in contrasts for s in c.seeds)
    return [*told, _table(CONTRAST_HEADER, rows), escape(rule(contrasts))]


def _seed_cells(seed: SeedContrast) -> list[str]:
    counts = map(count, (seed.both, seed.only_arm, seed.only_base, seed.neither))
    return [seed_name(seed.seed), *counts, points(seed.points), p_value(seed.p)]


def _arm_cells(row: ArmRow) -> list[str]:
    return [
        row.arm,
        count(row.seeds),
        count(row.n),
        percent(row.accuracy),
        span((row.low, row.high)),
        span(row.seed_range) if row.seed_range else "",
        percent(row.malformed),
        percent(row.truncated),
        count(row.think_tokens),
        count(row.answer_tokens),
        seconds(row.train_seconds),
        times(row.relative_time),
    ]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(map(escape, header)), ["---"] * len(header), *(list(map(escape, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {escape(line)}" for line in lines)


def _inert(value: object) -> object:
    """A text that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
