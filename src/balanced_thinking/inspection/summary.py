"""Counts and lines about an inspection, used by the text and by the page."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from statistics import mean, median
from typing import NamedTuple

from balanced_thinking.data.example import Example
from balanced_thinking.inspection.facts import Inspection

MAX_LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)  # values of max_length that one would try
_SHOWN_CHARACTERS = 80  # of an answer
_RATIO_EDGES = (1, 2, 5, 10, 20, 40, 80, 160, 320)


class CutAnswers(NamedTuple):
    """How many samples are longer than a `max_length`, so that cutting at the right loses their answers."""

    max_length: int
    samples: int


class RatioBar(NamedTuple):
    """A range of the think-to-answer ratio, and the number of samples in it."""

    label: str
    samples: int


def count_formats(found: Inspection) -> Counter[str]:
    """Reasoning format -> number of completions in the data that are written in it."""
    return Counter(s.example.meta["read_as"] for s in found.samples if "read_as" in s.example.meta)


def count_cut_answers(found: Inspection) -> list[CutAnswers]:
    """The values of `max_length` that would cut any sample; [] if total lengths are unknown."""
    counted = [CutAnswers(length, sum(n > length for n in found.totals)) for length in MAX_LENGTHS]
    return [one for one in counted if one.samples]


def median_length_ratio(found: Inspection) -> float | None:
    """None without reasoning."""
    return median(found.length_ratios) if found.samples_with_reasoning else None


def ratio_histogram(found: Inspection) -> list[RatioBar]:
    """From the first range that has samples to the last."""
    edges = (0, *_RATIO_EDGES, float("inf"))
    ratios = found.length_ratios
    bars = [
        RatioBar(
            f"{low:g} to {high:g}" if high < float("inf") else f"{low:g} or more", sum(low <= r < high for r in ratios)
        )
        for low, high in itertools.pairwise(edges)
    ]
    filled = [k for k, bar in enumerate(bars) if bar.samples]
    return bars[filled[0] : filled[-1] + 1] if filled else []


def summarize_contents(found: Inspection) -> list[str]:
    """Pictures, families, answers and formats, one line each."""
    examples = [sample.example for sample in found.samples]
    pictures = Counter(len(e.images) for e in examples)
    families = Counter(str(e.meta["family"]) for e in examples if "family" in e.meta)
    answers = Counter(e.answer for e in examples)
    lines = ["pictures per sample: " + ", ".join(f"{k} in {n}" for k, n in sorted(pictures.items()))]
    if found.sizes:
        small, large = (f"{w} x {h}" for w, h in (pick(found.sizes, key=lambda s: s[0] * s[1]) for pick in (min, max)))
        lines.append(f"picture sizes: {small} to {large} pixels, {len(set(found.sizes))} different")
    lines += _count_conversations(examples)
    if families:
        lines.append("families: " + ", ".join(f"{make_printable(name)} {n}" for name, n in families.most_common()))
    top, n = answers.most_common(1)[0]
    shown = repr(top if len(top) <= _SHOWN_CHARACTERS else f"{top[:_SHOWN_CHARACTERS]}...")
    lines.append(f"answers: {len(answers)} different; the most frequent, {shown}, is right in {n / len(examples):.0%}")
    lines.append(f"with reasoning: {len(found.samples_with_reasoning)} of {len(examples)}")
    if written := count_formats(found):
        lines.append("completions written as: " + ", ".join(f"{name} {n}" for name, n in written.most_common()))
    return lines


def _count_conversations(examples: Sequence[Example]) -> list[str]:
    """What few rows have: system texts, earlier turns, pictures inside a text, several right answers."""
    counted = {
        "system texts": (sum(bool(e.system) for e in examples), "--data_options.system drop leaves them out"),
        "earlier turns": (sum(bool(e.history) for e in examples), "--data_options.turns all trains on each turn"),
        "pictures inside or after a text": (sum(_has_inner_pictures(e) for e in examples), "each stays at its place"),
        "several right answers": (sum(bool(e.alternatives) for e in examples), "the first is trained on"),
    }
    return [f"{what}: in {n} samples ({note})" for what, (n, note) in counted.items() if n]


def _has_inner_pictures(example: Example) -> bool:
    return bool(example.image_places) or any(any(turn.image_places) for turn in example.history)


def summarize_lengths(found: Inspection) -> list[str]:
    """The lengths of both segments, one line each; [] without reasoning."""
    if not found.samples_with_reasoning:
        return []
    think, answer = ([getattr(s, name) for s in found.samples_with_reasoning] for name in ("think", "answer"))
    return [
        f"think {found.unit}: mean {mean(think):.0f}, median {median(think):.0f}, longest {max(think)}",
        f"answer {found.unit}: mean {mean(answer):.1f}, median {median(answer):.0f}, longest {max(answer)}",
    ]


def make_printable(text: str) -> str:
    """Replace control characters in the data, which must not reach the terminal, by spaces."""
    return "".join(c if c.isprintable() else " " for c in text)
