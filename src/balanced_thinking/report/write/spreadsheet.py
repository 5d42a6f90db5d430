"""The tables of arms and contrasts as CSV, at full precision, safe for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace

from balanced_thinking.report.build import Report
from balanced_thinking.report.compare.contrasts import Contrast
from balanced_thinking.report.compare.grid import SummaryRow, summarize_grid
from balanced_thinking.report.compare.rows import ArmRow
from balanced_thinking.system.spreadsheets import disarm_formula


def all_arm_rows(report: Report) -> list[ArmRow]:
    """Every arm on every split in every setting."""
    return [
        replace(row, setting=section.name or "")
        for section in report.sections
        for rows in section.tables.splits.values()
        for row in rows
    ]


def render_arms_csv(rows: Iterable[ArmRow]) -> str:
    """One line for each arm and split, numbers at full precision."""
    names = [field.name for field in fields(ArmRow)]
    return _to_csv(names, (asdict(row) | {"seed_range": _seed_range_text(row)} for row in rows))


def render_contrasts_csv(report: Report) -> str:
    """One line for each contrast and split, numbers at full precision, differences in points."""
    lines = [
        _contrast_values(section.name or "", contrast)
        for section in report.sections
        for contrasts in section.tables.by_split.values()
        for contrast in contrasts
    ]
    return _to_csv(CONTRAST_COLUMNS, (dict(zip(CONTRAST_COLUMNS, line, strict=True)) for line in lines))


def render_settings_csv(report: Report) -> str | None:
    """One line for each pair of arms: in how many settings its difference is what; None for a single setting."""
    if report.grid is None:
        return None
    return _to_csv([field.name for field in fields(SummaryRow)], map(asdict, summarize_grid(report.grid)))


CONTRAST_COLUMNS = (
    *("setting", "split", "arm", "base", "seeds", "items", "points", "low", "high", "p", "p_holm", "shown"),
    *("margin", "p_non_inferior", "non_inferior", "p_equivalent", "equivalent", "detectable_points"),
    *(f"{kind}_{name}" for kind in ("malformed", "truncated") for name in ("points", "low", "high", "p_holm", "shown")),
    *("complete_points", "complete_low", "complete_high", "complete_fewest_items"),
)


def _contrast_values(setting: str, c: Contrast) -> tuple[object, ...]:
    tost = (c.margin_points, c.tost.p_non_inferior, c.tost.non_inferior, c.tost.p, c.tost.equivalent) if c.tost else ()
    line = (
        setting,
        c.split,
        c.arm,
        c.base,
        len(c.seeds),
        c.fewest_items,
        c.points,
        *c.interval,
        c.p,
        c.p_holm,
        c.is_significant,
    )
    return (*line, *(tost or [None] * 5), c.detectable_points, *_output_values(c))


def _output_values(c: Contrast) -> list[object]:
    """Of malformed and truncated outputs, then of the accuracy where the outputs of both arms are complete."""
    if c.outputs is None:
        return [None] * 14
    values: list[object] = []
    for kind in (c.outputs.malformed, c.outputs.truncated):
        values += [kind.points, *kind.interval, kind.p_holm, kind.is_significant]
    complete = c.outputs.complete
    return [
        *values,
        *([None] * 4 if complete is None else [complete.points, *complete.interval, complete.fewest_items]),
    ]


def _to_csv(names: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: disarm_formula(value) for key, value in row.items()} for row in rows)
    return buffer.getvalue()


def _seed_range_text(row: ArmRow) -> str:
    return " to ".join(str(share) for share in row.seed_range or ())
