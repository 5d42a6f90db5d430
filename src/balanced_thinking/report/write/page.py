"""The report as one HTML page that opens offline: one script of our own, nothing from outside, every text escaped."""

from __future__ import annotations

from markupsafe import Markup

from balanced_thinking.html import content_security_policy, read_asset, template_environment
from balanced_thinking.report.build import Report
from balanced_thinking.report.compare import formatting
from balanced_thinking.report.compare.contrasts import Contrast
from balanced_thinking.report.write import wording
from balanced_thinking.runs.outcomes import GROUPS

_ASSETS = "balanced_thinking.report.write"
WORDS = (
    formatting.percent,
    formatting.span,
    formatting.points,
    formatting.interval,
    formatting.detectable,
    formatting.margin,
    formatting.count,
    formatting.seconds,
    formatting.cost_seconds,
    formatting.times,
    formatting.p_value,
    formatting.seed_name,
    wording.headline,
    wording.evidence,
    wording.within_margin,
    wording.as_good,
    wording.equal,
    wording.power,
    wording.weakness,
    wording.weak_settings,
    wording.leading,
    wording.rule,
    wording.pairs,
    wording.limits,
)


def render_page(report: Report) -> str:
    """The whole page. Only our own style sheet, script and drawings enter it unescaped."""
    css, js = (read_asset(_ASSETS, name) for name in ("page.css", "page.js"))
    environment = template_environment(_ASSETS)
    environment.filters |= {word.__name__: word for word in WORDS} | {"trusted": Markup}
    environment.globals |= {"groups": GROUPS, "named": named}
    template = environment.get_template("page.html.j2")
    return template.render(report=report, css=Markup(css), js=Markup(js), policy=content_security_policy(css, js))


def named(name: str, contrasts: tuple[Contrast, ...]) -> list[tuple[str, Contrast]]:
    return [(name, contrast) for contrast in contrasts]
