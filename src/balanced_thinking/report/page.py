"""The report as one HTML page that opens offline: one script of our own, nothing from outside, every text escaped."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from balanced_thinking.report import wording
from balanced_thinking.report.contrasts import Contrast
from balanced_thinking.report.failures import GROUPS
from balanced_thinking.report.study import Report

WORDS = (
    wording.percent,
    wording.span,
    wording.points,
    wording.interval,
    wording.detectable,
    wording.margin,
    wording.count,
    wording.seconds,
    wording.cost_seconds,
    wording.times,
    wording.p_value,
    wording.seed_name,
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
    css, js = _text("page.css"), _text("page.js")
    environment = Environment(
        loader=FunctionLoader(_text), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {word.__name__: word for word in WORDS} | {"trusted": Markup}
    environment.globals |= {"groups": GROUPS, "named": named}
    template = environment.get_template("page.html.j2")
    return template.render(report=report, css=Markup(css), js=Markup(js), policy=content_security_policy(css, js))


def named(name: str, contrasts: tuple[Contrast, ...]) -> list[tuple[str, Contrast]]:
    return [(name, contrast) for contrast in contrasts]


def content_security_policy(css: str, js: str) -> str:
    """Forbids everything but embedded pictures and exactly this style sheet and this script."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_digest(css)}'; script-src '{_digest(js)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _text(name: str) -> str:
    return (files("balanced_thinking.report") / name).read_text(encoding="utf-8")
