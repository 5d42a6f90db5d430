"""The report's numbers as Markdown for a pull request or a notebook, and the table of arms as CSV."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace

from balanced_thinking.report.build import Report
from balanced_thinking.report.compare.contrasts import Contrast, SeedContrast
from balanced_thinking.report.compare.cost import CostRow
from balanced_thinking.report.compare.formatting import (
    cost_seconds,
    count,
    detectable,
    interval,
    p_value,
    percent,
    points,
    seconds,
    seed_name,
    span,
    times,
)
from balanced_thinking.report.compare.rows import ArmRow
from balanced_thinking.report.compare.tables import Tables
from balanced_thinking.report.write.wording import (
    as_good,
    equal,
    evidence,
    headline,
    leading,
    limits,
    pairs,
    power,
    rule,
    weak_settings,
    weakness,
    within_margin,
)
from balanced_thinking.runs.outcomes import GROUPS

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
CONTRAST_HEADER = [
    "contrast",
    "seeds",
    "points",
    "95 % interval",
    "p, Holm",
    "difference",
    "as good within the margin",
    "equal within the margin",
    "detectable points",
]
SEED_HEADER = ["arm", "against", "seed", "both", "only the arm", "only the other", "neither", "points", "p"]
COST_HEADER = ["arm", "part", "runs", "wall, s", "CPU, s", "tokens", "peak, MiB", "whole training relative to baseline"]


def render_markdown(report: Report) -> str:
    """Verdicts, contrasts, arms, failures, families, costs, differing settings, notes and limits, as on the page."""
    blocks = ["# Balanced Thinking report"]
    if report.several:
        blocks += ["## Verdict over all settings", *_overall(report)]
    for section in report.sections:
        blocks += _section(section.tables, f"{escape(section.name)}: " if section.name else "")
    if report.all_notes:
        blocks += ["## Notes", _list(report.all_notes)]
    return "\n\n".join(blocks) + "\n"


def _overall(report: Report) -> list[str]:
    rows = ([setting, *_contrast_cells(contrast)] for setting, contrast in report.contrasts)
    blocks = [f"**{escape(weak)}**"] if (weak := weak_settings(report.by_setting)) else []
    blocks += [_list(f"{setting}: {headline(contrast)}" for setting, contrast in report.contrasts)]
    return [*blocks, *([_table(["setting", *CONTRAST_HEADER], rows)] if report.contrasts else [])]


def _section(tables: Tables, title: str) -> list[str]:
    blocks = [f"## {title}Verdict", *_verdict(tables)]
    for split, rows in tables.splits.items():
        blocks += [f"## {title}Arms on {escape(split)}", _table(ARM_HEADER, (_arm_cells(row) for row in rows))]
        if told := pairs(rows):
            blocks.append(escape(told))
        if split in tables.leaders:
            blocks.append(escape(leading(tables.leaders[split])))
    main = escape(str(tables.main_split))
    blocks += _titled(
        f"## {title}Failures on {main}", ["arm", *GROUPS], ([r.arm, *map(percent, r.shares)] for r in tables.failures)
    )
    blocks += _titled(
        f"## {title}Accuracy by question family on {main}",
        ["family", "items", *tables.arms],
        ([row.family, count(row.n), *map(percent, row.accuracies)] for row in tables.families),
    )
    blocks += _titled(f"## {title}Costs", COST_HEADER, map(_cost_cells, tables.costs))
    differing = ([row.key, *(", ".join(values) for values in row.values)] for row in tables.config if row.differs)
    blocks += _titled(f"## {title}Settings that differ", ["key", *tables.arms], differing)
    return [*blocks, f"## {title}Limits", _list(limits(tables))]


def _titled(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    found = list(rows)
    return [title, _table(header, found)] if found else []


def arm_rows(report: Report) -> list[ArmRow]:
    """Every arm on every split in every setting."""
    return [
        replace(row, setting=section.name or "")
        for section in report.sections
        for rows in section.tables.splits.values()
        for row in rows
    ]


def render_csv(rows: Iterable[ArmRow]) -> str:
    """One line for each arm and split, numbers at full precision."""
    names = [field.name for field in fields(ArmRow)]
    return _csv(names, (asdict(row) | {"seed_range": _range(row)} for row in rows))


def render_contrasts_csv(report: Report) -> str:
    """One line for each contrast and split, numbers at full precision, differences in points."""
    lines = [
        _contrast_line(section.name or "", contrast)
        for section in report.sections
        for contrasts in section.tables.by_split.values()
        for contrast in contrasts
    ]
    return _csv(CONTRAST_COLUMNS, (dict(zip(CONTRAST_COLUMNS, line, strict=True)) for line in lines))


CONTRAST_COLUMNS = (
    *("setting", "split", "arm", "base", "seeds", "items", "points", "low", "high", "p", "p_holm", "shown"),
    *("margin", "p_non_inferior", "non_inferior", "p_equivalent", "equivalent", "detectable_points"),
)


def _contrast_line(setting: str, c: Contrast) -> tuple[object, ...]:
    tost = (c.margin_points, c.tost.p_non_inferior, c.tost.non_inferior, c.tost.p, c.tost.equivalent) if c.tost else ()
    told = (setting, c.split, c.arm, c.base, len(c.seeds), c.n, c.points, *c.interval, c.p, c.p_holm, c.shown)
    return (*told, *(tost or [None] * 5), c.detectable_points)


def _csv(names: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _inert(value) for key, value in row.items()} for row in rows)
    return buffer.getvalue()


def _range(row: ArmRow) -> str:
    return " to ".join(str(share) for share in row.seed_range or ())


def escape(text: str) -> str:
    """Text that Markdown and the HTML inside it take literally, on one line."""
    return re.sub(r"([\\`*_{}\[\]|#~])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _verdict(tables: Tables) -> list[str]:
    compared = [contrasts for contrasts in tables.by_split.values() if contrasts]
    blocks = [f"**{escape(weak)}**"] if (weak := weakness(tables.contrasts)) else []
    if not tables.contrasts:
        where = f" of {tables.main_split}" if compared else ""
        blocks.append(escape(f"Nothing to compare: it takes two arms with predictions of the same items{where}."))
    for c in tables.contrasts:
        told = (evidence(c), within_margin(c), power(c))
        blocks.append(f"**{escape(headline(c))}** {escape(' '.join(filter(None, told)))}")
    for split, contrasts in tables.by_split.items():
        blocks += _titled(f"### Contrasts on {escape(split)}", CONTRAST_HEADER, map(_contrast_cells, contrasts))
        rows = ([c.arm, c.base, *_seed_cells(s)] for c in contrasts for s in c.seeds)
        blocks += _titled(f"### Paired counts on {escape(split)}", SEED_HEADER, rows)
    return [*blocks, *(escape(rule(contrasts)) for contrasts in compared[:1])]


def _contrast_cells(c: Contrast) -> list[str]:
    return [
        f"{c.arm} − {c.base}",
        str(len(c.seeds)),
        points(c.points),
        interval(c.interval),
        p_value(c.p_holm),
        "shown" if c.shown else "not shown",
        as_good(c),
        equal(c),
        detectable(c.detectable_points),
    ]


def _cost_cells(row: CostRow) -> list[str]:
    spent = (cost_seconds(row.wall_seconds), cost_seconds(row.cpu_seconds), count(row.tokens), count(row.peak_mib))
    return [row.arm, row.part, str(row.runs), *spent, times(row.relative)]


def _seed_cells(seed: SeedContrast) -> list[str]:
    counts = map(count, (seed.both, seed.only_arm, seed.only_base, seed.neither))
    return [seed_name(seed.seed), *counts, points(seed.points), p_value(seed.p)]


def _arm_cells(row: ArmRow) -> list[str]:
    return [
        row.arm,
        count(row.seeds or None),
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
