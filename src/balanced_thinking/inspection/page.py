"""An inspection as one HTML page that opens offline: no script, nothing from outside, every text escaped."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from balanced_thinking.data.bad_rows import PROBLEMS, RowError
from balanced_thinking.data.images import open_image
from balanced_thinking.data.row_paths import may_be_copied
from balanced_thinking.html import content_security_policy, data_uri, read_asset, template_environment
from balanced_thinking.inspection.advice import advise_changes
from balanced_thinking.inspection.facts import Inspection, Sample
from balanced_thinking.inspection.kind import describe_kind, explain_kind
from balanced_thinking.inspection.summary import (
    count_cut_answers,
    median_length_ratio,
    ratio_histogram,
    summarize_contents,
    summarize_lengths,
)
from balanced_thinking.inspection.supported import RESULTS_URL
from balanced_thinking.inspection.text import describe_duplicate_pair
from balanced_thinking.segments import THINK, parse, render
from balanced_thinking.system.files import write_atomically

_ASSETS = "balanced_thinking.inspection"
SHOWN_SAMPLES, SHOWN_ROWS = 40, 100
_THUMBNAIL_PIXELS = 220


@dataclass(frozen=True)
class ShownSample:
    """A sample as the page shows it: pictures as data URIs, and the completion in pieces of (segment, text)."""

    sample: Sample
    pictures: list[str]
    pieces: list[tuple[str, str]]
    left_out: int = 0  # pictures outside the data's folder


def write_page(found: Inspection, path: Path) -> Path:
    """Write the page and return its path."""
    css = read_asset(_ASSETS, "page.css")
    bars = ratio_histogram(found)
    html = (
        template_environment(_ASSETS)
        .get_template("page.html.j2")
        .render(
            found=found,
            css=Markup(css),
            policy=content_security_policy(css, ""),
            changes=advise_changes(found),
            contents=summarize_contents(found) if found.samples else [],
            lengths=summarize_lengths(found),
            kind=describe_kind(found.kind) if found.kind else "",
            kind_lines=explain_kind(found.kind) if found.kind else [],
            results_url=RESULTS_URL,
            cuts=count_cut_answers(found),
            bars=bars,
            most=max((bar.samples for bar in bars), default=1),
            ratio=median_length_ratio(found),
            rows=found.bad_rows[:SHOWN_ROWS],
            problems=PROBLEMS,
            describe_duplicate_pair=describe_duplicate_pair,
            shown=[_prepare_sample(sample, found.format) for sample in _pick_evenly(found.samples, SHOWN_SAMPLES)],
        )
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, html.encode("utf-8", "replace").decode("utf-8"))  # bad rows may have half a surrogate pair
    return path


def _pick_evenly(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Samples from the complete set, not only from its beginning."""
    count = min(count, len(samples))
    return [samples[k * len(samples) // count] for k in range(count)]


def _prepare_sample(sample: Sample, format: str) -> ShownSample:
    example = sample.example
    pieces = [("answer", example.answer)]
    if example.think:
        text = render(example.think, example.answer, format)
        pieces = [
            ("think" if span.segment == THINK else "answer", text[span.start : span.end])
            for span in parse(text, format).spans
        ]
    kept = [image for image in example.images if may_be_copied(image)]
    pictures = [uri for image in kept if (uri := _thumbnail_uri(image))]
    return ShownSample(sample, pictures, pieces, len(example.images) - len(kept))


def _thumbnail_uri(image: object) -> str:
    """The picture as a small data URI, or an empty text if it cannot be read."""
    try:
        picture = open_image(image)
    except RowError:
        return ""
    picture.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return data_uri(buffer.getvalue())
