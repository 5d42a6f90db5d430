"""The report as one HTML page that opens offline: one script of ours, nothing from outside, every text escaped."""

from __future__ import annotations

from markupsafe import Markup

from balanced_thinking.html import content_security_policy, read_asset, template_environment
from balanced_thinking.report.build import NamedContrast, Report
from balanced_thinking.report.compare import formatting, grid
from balanced_thinking.report.compare.contrasts import Contrast
from balanced_thinking.report.draw.svg import DRAWING_CSS
from balanced_thinking.report.write import grid_words, wording
from balanced_thinking.runs.outcomes import GROUPS

_ASSETS = "balanced_thinking.report.write"
# Colors and segments: also for the page of `balanced chat`.
SEGMENTS_CSS = DRAWING_CSS + read_asset(_ASSETS, "segments.css")
FILTERS = (
    formatting.format_percent,
    formatting.format_range,
    formatting.format_points,
    formatting.format_interval,
    formatting.format_detectable,
    formatting.format_margin,
    formatting.format_count,
    formatting.format_duration,
    formatting.format_cost_seconds,
    formatting.format_ratio,
    formatting.format_p,
    formatting.format_seed,
    wording.verdict_headline,
    wording.verdict_evidence,
    wording.margin_sentence,
    wording.non_inferiority_cell,
    wording.equivalence_cell,
    wording.significant_or_not,
    wording.output_test_cell,
    wording.complete_share_cell,
    grid.summarize_grid,
    grid_words.summary_cells,
    wording.power_sentence,
    wording.low_power_warning,
    wording.low_power_settings_warning,
    wording.leader_sentence,
    wording.explain_verdict_rule,
    wording.protocol_sentence,
    wording.describe_limits,
)


def render_page(report: Report) -> str:
    """The complete page. Only our own style sheet, script and drawings are not escaped."""
    css = SEGMENTS_CSS + read_asset(_ASSETS, "page.css")
    js = read_asset(_ASSETS, "page.js")
    environment = template_environment(_ASSETS)
    environment.filters |= {word.__name__: word for word in FILTERS} | {"trusted": Markup}
    environment.globals |= {
        "groups": GROUPS,
        "name_contrasts": name_contrasts,
        "outputs_rule": wording.explain_outputs(),
        "summary_header": grid_words.SUMMARY_HEADER,
        "summary_rule": grid_words.explain_summary(report),
    }
    template = environment.get_template("page.html.j2")
    return template.render(report=report, css=Markup(css), js=Markup(js), policy=content_security_policy(css, js))


def name_contrasts(name: str, contrasts: tuple[Contrast, ...]) -> list[NamedContrast]:
    """The contrasts with one name, as the rows of a table."""
    return [NamedContrast(name, contrast) for contrast in contrasts]
