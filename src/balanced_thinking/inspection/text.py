"""An inspection as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, median

from balanced_thinking.data.bad_rows import format_bad_rows
from balanced_thinking.inspection.advice import advise_changes
from balanced_thinking.inspection.duplicates import Duplicate
from balanced_thinking.inspection.facts import Inspection
from balanced_thinking.inspection.kind import describe_kind, explain_kind
from balanced_thinking.inspection.summary import (
    count_cut_answers,
    make_printable,
    ratio_histogram,
    summarize_contents,
    summarize_lengths,
)

_BAR_WIDTH = 40
_SHOWN_DUPLICATES = 5
_KINDS = {
    "picture": "the same picture as",
    "near_picture": "nearly the same picture as",
    "question": "the same question as",
    "question_only": "the same question about another picture as",
}


def describe_inspection(found: Inspection) -> str:
    """All results in words and numbers; what to change comes last."""
    lines = [f"{found.data}, split {found.split}: {len(found.samples)} examples, {len(found.bad_rows)} bad rows"]
    if found.bad_rows:
        lines += ["", format_bad_rows(found.bad_rows)]
    if found.samples:
        lines += ["", *summarize_contents(found)]
    if found.samples_with_reasoning:
        lines += ["", *summarize_lengths(found), _loss_share_line(found), "", *_histogram_lines(found)]
    if found.kind is not None:
        lines += ["", describe_kind(found.kind), *(f"  {line}" for line in explain_kind(found.kind))]
    if cuts := count_cut_answers(found):
        lines.append("")
        for cut in cuts:
            share = cut.samples / len(found.samples)
            lines.append(f"max_length {cut.max_length} would cut off {cut.samples} answers ({share:.1%})")
    lines += _duplicate_lines(found.repeats, "samples that repeat an earlier one")
    lines += _duplicate_lines(found.leaks, "samples that are in a benchmark's test split")
    lines += _duplicate_lines(found.shared_questions, "samples that ask a test item's question about another picture")
    lines += ["", f"compared with {', '.join(found.benchmarks)}"] if found.benchmarks else []
    return "\n".join([*lines, "", *(f"-> {line}" for line in advise_changes(found))])


def _loss_share_line(found: Inspection) -> str:
    share = found.think_loss_share or 0.0
    return f"plain SFT would give {share:.1%} of its weight to thinking and {1 - share:.1%} to the answer"


def _histogram_lines(found: Inspection) -> list[str]:
    """One bar for each range of the think-to-answer ratio."""
    ratios, bars = found.length_ratios, ratio_histogram(found)
    most = max(bar.samples for bar in bars)
    return [
        f"think-to-answer ratio: mean {mean(ratios):.1f}, median {median(ratios):.1f}",
        *(f"  {label:>12}  {'█' * round(_BAR_WIDTH * n / most)} {n}" for label, n in bars),
    ]


def _duplicate_lines(duplicates: Sequence[Duplicate], title: str) -> list[str]:
    if not duplicates:
        return []
    more = len(duplicates) - _SHOWN_DUPLICATES
    shown = [f"  {describe_duplicate_pair(one)}" for one in duplicates[:_SHOWN_DUPLICATES]]
    return ["", f"{title}: {len(duplicates)}", *shown, *([f"  ... and {more} more"] if more > 0 else [])]


def describe_duplicate_pair(one: Duplicate) -> str:
    """One pair in words."""
    text = f"{make_printable(one.id)}: {_KINDS[one.kind]} {make_printable(one.other)}"
    return f"{text} of {one.benchmark}" if one.benchmark else text
