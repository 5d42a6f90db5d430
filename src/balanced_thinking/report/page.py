"""The report as one HTML page that opens offline: no scripts, nothing from outside, every text escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from balanced_thinking.report import wording
from balanced_thinking.report.figures import Drawing
from balanced_thinking.report.samples import Samples
from balanced_thinking.report.tables import Tables

WORDS = (
    wording.percent,
    wording.span,
    wording.points,
    wording.count,
    wording.seconds,
    wording.times,
    wording.p_value,
    wording.seed_name,
    wording.headline,
    wording.evidence,
    wording.power,
    wording.rule,
    wording.limits,
)


def render_page(tables: Tables, drawings: Sequence[Drawing], samples: Samples) -> str:
    """The whole page. Only our own style sheet and drawings enter it unescaped."""
    folder = files("balanced_thinking.report")
    css = (folder / "page.css").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {word.__name__: word for word in WORDS}
    template = environment.from_string((folder / "page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        tables=tables,
        drawings=[(drawing, Markup(drawing.svg)) for drawing in drawings],
        samples=samples,
        css=Markup(css),
        policy=content_security_policy(css),
    )


def content_security_policy(css: str) -> str:
    """Forbids everything but embedded pictures and exactly this style sheet."""
    digest = base64.b64encode(hashlib.sha256(css.encode("utf-8")).digest()).decode("ascii")
    return f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
