"""The report's numbers as Markdown, for a pull request or a notebook."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from balanced_thinking.report.build import Report
from balanced_thinking.report.compare.contrasts import Contrast, SeedContrast
from balanced_thinking.report.compare.cost import CostRow
from balanced_thinking.report.compare.formatting import (
    MISSING,
    format_cost_seconds,
    format_count,
    format_detectable,
    format_duration,
    format_interval,
    format_p,
    format_percent,
    format_points,
    format_range,
    format_ratio,
    format_seed,
)
from balanced_thinking.report.compare.grid import summarize_grid
from balanced_thinking.report.compare.rows import ArmRow
from balanced_thinking.report.compare.tables import Tables
from balanced_thinking.report.draw.grid import explain_marks
from balanced_thinking.report.write.grid_words import SUMMARY_HEADER, explain_summary, grid_tables, summary_cells
from balanced_thinking.report.write.wording import (
    complete_share_cell,
    describe_limits,
    equivalence_cell,
    explain_outputs,
    explain_verdict_rule,
    leader_sentence,
    low_power_settings_warning,
    low_power_warning,
    margin_sentence,
    non_inferiority_cell,
    output_test_cell,
    power_sentence,
    protocol_sentence,
    significant_or_not,
    verdict_evidence,
    verdict_headline,
)
from balanced_thinking.runs.outcomes import GROUPS
from balanced_thinking.system.text import show_controls

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
    "non-inferior within the margin",
    "equivalent within the margin",
    "detectable points",
]
OUTPUT_HEADER = [
    "contrast",
    "malformed, points",
    "p, Holm",
    "truncated, points",
    "p, Holm",
    "accuracy, points, all items",
    "where both are complete",
    "both complete",
]
SEED_HEADER = ["arm", "against", "seed", "both", "only the arm", "only the other", "neither", "points", "p"]
COST_HEADER = ["arm", "part", "runs", "wall, s", "CPU, s", "tokens", "peak, MiB", "total training relative to baseline"]


def render_markdown(report: Report) -> str:
    """Verdicts, contrasts, arms, failures, families, costs, differing settings, notes and limits, as on the page."""
    blocks = ["# Balanced Thinking report"]
    if report.has_several_settings:
        blocks += ["## Verdict over all settings", *_overall_blocks(report)]
    for section in report.sections:
        blocks += _section_blocks(section.tables, f"{escape_markdown(section.name)}: " if section.name else "")
    if report.all_notes:
        blocks += ["## Notes", _markdown_list(report.all_notes)]
    return "\n\n".join(blocks) + "\n"


def _overall_blocks(report: Report) -> list[str]:
    rows = ([setting, *_contrast_cells(contrast)] for setting, contrast in report.contrasts)
    warning = low_power_settings_warning(report.contrasts_by_setting)
    troubles = [
        f"**{escape_markdown(f'{section.name}: {trouble}')}**"
        for section in report.sections
        for trouble in section.tables.decisive_troubles
    ]
    blocks = [*troubles, *([f"**{escape_markdown(warning)}**"] if warning else [])]
    blocks += _grid_blocks(report)
    blocks += [_markdown_list(f"{setting}: {verdict_headline(contrast)}" for setting, contrast in report.contrasts)]
    return [*blocks, *([_markdown_table(["setting", *CONTRAST_HEADER], rows)] if report.contrasts else [])]


def _grid_blocks(report: Report) -> list[str]:
    """The grid of arms and settings, and the summary of each arm."""
    if report.grid is None:
        return []
    tables = [_markdown_table(header, rows) for header, rows in grid_tables(report.grid)]
    rows = [[f"{row.arm} − {row.base}", *summary_cells(row)] for row in summarize_grid(report.grid)]
    return [
        "### Differences in all settings, points (95 % interval)",
        *tables,
        escape_markdown(f"{explain_marks(report.margin)}."),
        "### In how many settings each arm is better or worse",
        _markdown_table(["contrast", *SUMMARY_HEADER], rows),
        escape_markdown(explain_summary(report)),
    ]


def _section_blocks(tables: Tables, title: str) -> list[str]:
    blocks = [f"## {title}Verdict", *_verdict_blocks(tables)]
    for split, rows in tables.splits.items():
        blocks += [
            f"## {title}Arms on {escape_markdown(split)}",
            _markdown_table(ARM_HEADER, (_arm_cells(row) for row in rows)),
        ]
        if sentence := protocol_sentence(rows):
            blocks.append(escape_markdown(sentence))
        if split in tables.leaders:
            blocks.append(escape_markdown(leader_sentence(tables.leaders[split])))
    main = escape_markdown(str(tables.main_split))
    blocks += _titled_table(
        f"## {title}Failures on {main}",
        ["arm", *GROUPS],
        ([r.arm, *map(format_percent, r.shares)] for r in tables.failures),
    )
    if tables.troubles:
        blocks += [f"## {title}What went wrong", _markdown_list(trouble.text for trouble in tables.troubles)]
    blocks += _titled_table(
        f"## {title}Accuracy by question family on {main}",
        ["family", "items", *tables.arms],
        ([row.family, format_count(row.n), *map(format_percent, row.accuracies)] for row in tables.families),
    )
    blocks += _titled_table(f"## {title}Costs", COST_HEADER, map(_cost_cells, tables.costs))
    differing = ([row.key, *(", ".join(values) for values in row.values)] for row in tables.config if row.differs)
    blocks += _titled_table(f"## {title}Settings that differ", ["key", *tables.arms], differing)
    return [*blocks, f"## {title}Limits", _markdown_list(describe_limits(tables))]


def _titled_table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    found = list(rows)
    return [title, _markdown_table(header, found)] if found else []


def escape_markdown(text: str) -> str:
    """The text on one line, escaped so that Markdown and HTML take it literally."""
    return re.sub(r"([\\`*_{}\[\]|#~])", r"\\\1", html.escape(show_controls(" ".join(text.split())), quote=False))


def _verdict_blocks(tables: Tables) -> list[str]:
    compared = [contrasts for contrasts in tables.by_split.values() if contrasts]
    blocks = [f"**{escape_markdown(trouble)}**" for trouble in tables.decisive_troubles]
    blocks += [f"**{escape_markdown(weak)}**"] if (weak := low_power_warning(tables.contrasts)) else []
    if not tables.contrasts:
        where = f" of {tables.main_split}" if compared else ""
        blocks.append(
            escape_markdown(f"Nothing to compare: a verdict needs two arms with predictions of the same items{where}.")
        )
    for c in tables.contrasts:
        sentences = (verdict_evidence(c), margin_sentence(c), power_sentence(c))
        blocks.append(
            f"**{escape_markdown(verdict_headline(c))}** {escape_markdown(' '.join(filter(None, sentences)))}"
        )
    for split, contrasts in tables.by_split.items():
        blocks += _titled_table(
            f"### Contrasts on {escape_markdown(split)}", CONTRAST_HEADER, map(_contrast_cells, contrasts)
        )
        blocks += _titled_table(
            f"### Outputs that exist, on {escape_markdown(split)}", OUTPUT_HEADER, map(_output_cells, contrasts)
        )
        rows = ([c.arm, c.base, *_seed_cells(s)] for c in contrasts for s in c.seeds)
        blocks += _titled_table(f"### Paired counts on {escape_markdown(split)}", SEED_HEADER, rows)
    rules = (escape_markdown(text) for c in compared[:1] for text in (explain_verdict_rule(c), explain_outputs()))
    return [*blocks, *rules]


def _contrast_cells(c: Contrast) -> list[str]:
    return [
        f"{c.arm} − {c.base}",
        str(len(c.seeds)),
        format_points(c.points),
        format_interval(c.interval),
        format_p(c.p_holm),
        significant_or_not(c),
        non_inferiority_cell(c),
        equivalence_cell(c),
        format_detectable(c.detectable_points),
    ]


def _output_cells(c: Contrast) -> list[str]:
    if c.outputs is None:
        return [f"{c.arm} − {c.base}", *[MISSING] * (len(OUTPUT_HEADER) - 1)]
    cells = [f"{c.arm} − {c.base}"]
    for kind in (c.outputs.malformed, c.outputs.truncated):
        cells += [_points_and_interval(kind), output_test_cell(kind)]
    complete = MISSING if c.outputs.complete is None else _points_and_interval(c.outputs.complete)
    return [*cells, format_points(c.points), complete, complete_share_cell(c)]


def _points_and_interval(c: Contrast) -> str:
    return f"{format_points(c.points)} ({format_interval(c.interval)})"


def _cost_cells(row: CostRow) -> list[str]:
    spent = (
        format_cost_seconds(row.wall_seconds),
        format_cost_seconds(row.cpu_seconds),
        format_count(row.tokens),
        format_count(row.peak_mib),
    )
    return [row.arm, row.part, str(row.runs), *spent, format_ratio(row.relative)]


def _seed_cells(seed: SeedContrast) -> list[str]:
    counts = map(format_count, (seed.both, seed.only_arm, seed.only_base, seed.neither))
    return [format_seed(seed.seed), *counts, format_points(seed.points), format_p(seed.p)]


def _arm_cells(row: ArmRow) -> list[str]:
    return [
        row.arm,
        format_count(row.seeds or None),
        format_count(row.n),
        format_percent(row.accuracy),
        format_range((row.low, row.high)),
        format_range(row.seed_range) if row.seed_range else "",
        format_percent(row.malformed),
        format_percent(row.truncated),
        format_count(row.think_tokens),
        format_count(row.answer_tokens),
        format_duration(row.train_seconds),
        format_ratio(row.relative_time),
    ]


def _markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [
        list(map(escape_markdown, header)),
        ["---"] * len(header),
        *(list(map(escape_markdown, row)) for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _markdown_list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {escape_markdown(line)}" for line in lines)
