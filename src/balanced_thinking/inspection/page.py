"""An inspection as one HTML page that opens offline: no script, nothing from outside, every text escaped."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from balanced_thinking.data.bad_rows import PROBLEMS, RowError
from balanced_thinking.data.images import open_image
from balanced_thinking.html import content_security_policy, data_uri, read_asset, template_environment
from balanced_thinking.inspection.facts import Inspection, Sample
from balanced_thinking.inspection.text import advice, counts, cuts_of, histogram_of, lengths, median_ratio, told
from balanced_thinking.segments import THINK, parse, render
from balanced_thinking.system.files import write_atomically

_ASSETS = "balanced_thinking.inspection"
SHOWN_SAMPLES, SHOWN_ROWS = 40, 100
_SIDE = 220


@dataclass(frozen=True)
class Shown:
    """A sample as the page shows it: pictures as data, and the completion's pieces, each of one segment."""

    sample: Sample
    pictures: list[str]
    pieces: list[tuple[str, str]]


def write_page(found: Inspection, path: Path) -> Path:
    """Write the page and return its path."""
    css = read_asset(_ASSETS, "page.css")
    bars = histogram_of(found)
    html = (
        template_environment(_ASSETS)
        .get_template("page.html.j2")
        .render(
            found=found,
            css=Markup(css),
            policy=content_security_policy(css, ""),
            advice=advice(found),
            counts=counts(found) if found.samples else [],
            lengths=lengths(found),
            cuts=cuts_of(found),
            bars=bars,
            most=max((n for _, n in bars), default=1),
            ratio=median_ratio(found),
            rows=found.bad_rows[:SHOWN_ROWS],
            problems=PROBLEMS,
            told=told,
            shown=[_shown(sample, found.format) for sample in _spread(found.samples, SHOWN_SAMPLES)],
        )
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, html.encode("utf-8", "replace").decode("utf-8"))  # bad rows may hold half characters
    return path


def _spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Samples from everywhere in the set, not only from its beginning."""
    count = min(count, len(samples))
    return [samples[k * len(samples) // count] for k in range(count)]


def _shown(sample: Sample, format: str) -> Shown:
    example = sample.example
    text = render(example.think, example.answer, format) if example.think else example.answer
    pieces = []
    for span in parse(text, format).spans if example.think else ():
        pieces.append(("think" if span.segment == THINK else "answer", text[span.start : span.end]))
    return Shown(
        sample, [data for image in example.images if (data := _thumbnail(image))], pieces or [("answer", text)]
    )


def _thumbnail(image: object) -> str:
    try:
        picture = open_image(image)
    except RowError:
        return ""
    picture.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return data_uri(buffer.getvalue())
