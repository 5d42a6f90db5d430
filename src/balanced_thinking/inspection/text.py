"""An inspection as text for a terminal, and what it advises."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from statistics import mean, median

from balanced_thinking.data.bad_rows import bad_rows_table
from balanced_thinking.data.prose import split_prose
from balanced_thinking.data.schemas import PROSE
from balanced_thinking.inspection.facts import Inspection
from balanced_thinking.inspection.twins import Twin

LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)  # values of max_length that one would try
_BAR_WIDTH = 40
_RATIO_EDGES = (1, 2, 5, 10, 20, 40, 80, 160, 320)
_SHOWN = 5
_OWN = {"row", "family", "read_as"}  # of meta
_SLACK = 1.05  # the count leaves out what frames a picture
_LONG_RATIO = 20  # from which on the answer's share of plain SFT's loss is below 5 %
_KINDS = {
    "picture": "the same picture as",
    "near_picture": "nearly the same picture as",
    "question": "the same question as",
    "asked": "the same question about another picture as",
}


def describe(found: Inspection) -> str:
    """Everything in words and figures, what to change last."""
    lines = [f"{found.data}, split {found.split}: {len(found.samples)} examples, {len(found.bad_rows)} bad rows"]
    if found.bad_rows:
        lines += ["", bad_rows_table(found.bad_rows)]
    if found.samples:
        lines += ["", *counts(found)]
    if found.reasoned:
        lines += ["", *lengths(found), *_share(found), "", *_histogram(found)]
    if cuts := cuts_of(found):
        lines += [
            "",
            *(f"max_length {cut} would cut {n} answers off ({n / len(found.samples):.1%})" for cut, n in cuts),
        ]
    lines += _twins(found.twins, "samples occur twice") + _twins(found.leaks, "samples are in a benchmark's test split")
    lines += _twins(found.asked, "samples ask a test item's question about another picture")
    lines += ["", f"compared with {', '.join(found.benchmarks)}"] if found.benchmarks else []
    return "\n".join([*lines, "", *(f"-> {line}" for line in advice(found))])


def advice(found: Inspection) -> list[str]:
    """What to change before training, most urgent first."""
    told = []
    if not found.samples and not found.bad_rows:
        told.append("there is no row: look at the file and the split")
    if found.leaks:
        told.append(
            f"take the {len(found.leaks)} samples out that are in a test split: their benchmark would flatter you"
        )
    if found.asked:
        told.append(
            f"look at the {len(found.asked)} samples that ask a test item's question about another picture: does the "
            "question alone give the answer away?"
        )
    if found.bad_rows:
        problems = Counter(name for bad in found.bad_rows for name in bad.problems)
        named = ", ".join(f"{name} {n}" for name, n in problems.most_common())
        cure = "or leave them out with --on-bad-row drop" if found.samples else "for there is no good one"
        told.append(f"mend the {len(found.bad_rows)} bad rows ({named}), {cure}")
        if prose := sum("no_answer" in bad.problems and split_prose(bad.text) is not None for bad in found.bad_rows):
            told.append(
                f"{prose} of them end in a sentence that gives the answer: --data_options.format prose reads it"
            )
    if found.twins:
        told.append(f"take {len(found.twins)} of the samples out that occur twice")
    told += _format_advice(found)
    if found.samples and not found.reasoned:
        texts = ", ".join(sorted(_unread(found)))
        unread = f" (under think or reasoning; nothing reads the texts under {printable(texts)})" if texts else ""
        told.append(f"there is no reasoning to train on{unread}: the data can be used for evaluation and for GRPO")
    elif (missing := len(found.samples) - len(found.reasoned)) > 0:
        told.append(f"{missing} samples have no reasoning: write it, or leave them out")
    if (ratio := median_ratio(found)) is not None and ratio >= _LONG_RATIO:
        told.append(
            f"a median ratio of {ratio:.0f} leaves the answer {1 - (found.think_share or 0):.1%} of plain SFT's loss: "
            "compare weighting scale and uniform by `balanced study`"
        )
    longest = max((sample.whole or 0 for sample in found.samples), default=0)
    if longest:
        fitting = next((length for length in LENGTHS if length >= _SLACK * longest), None)
        told.append(f"max_length: {fitting or 'null'} cuts nothing (the longest sample has about {longest} tokens)")
    if found.leaks or found.twins:
        told.append(
            f"balanced inspect {found.data} ... --rows rows.csv lists these samples, and balanced convert {found.data} "
            "--without rows.csv --out clean.jsonl takes them out"
        )
    return told or ["nothing needs to be changed"]


def _unread(found: Inspection) -> set[str]:
    """Keys of rows under which texts stand that nobody reads."""
    beside = ((key, value) for sample in found.samples for key, value in sample.example.meta.items())
    return {key for key, value in beside if key not in _OWN and isinstance(value, str) and " " in value.strip()}


def _format_advice(found: Inspection) -> list[str]:
    """How completions are written, and which format to train in; nothing where reasoning and answer stand apart."""
    written = formats_of(found).most_common()
    if not written or written == [(found.format, len(found.samples))] or written[0][0] == PROSE:
        return []
    named = ", ".join(f"{name} {n}" for name, n in written)
    keep = f"reasoning_format: {written[0][0]} keeps {'the most frequent' if len(written) > 1 else 'it'}"
    return [f"completions are written as {named}; training writes all of them in one format, {found.format}: {keep}"]


def formats_of(found: Inspection) -> Counter[str]:
    """How often each reasoning format was met in the data's completions."""
    return Counter(s.example.meta["read_as"] for s in found.samples if "read_as" in s.example.meta)


def cuts_of(found: Inspection) -> list[tuple[int, int]]:
    """(max_length, samples that are longer) for each that would cut any; () where lengths are unknown."""
    whole = [sample.whole for sample in found.samples if sample.whole is not None]
    counted = [(length, sum(n > length for n in whole)) for length in LENGTHS]
    return [(length, n) for length, n in counted if n]


def median_ratio(found: Inspection) -> float | None:
    ratios = ratios_of(found)
    return median(ratios) if ratios else None


def ratios_of(found: Inspection) -> list[float]:
    """Length of the reasoning in lengths of the answer, sample by sample."""
    return [sample.think / max(1, sample.answer) for sample in found.reasoned]


def histogram_of(found: Inspection) -> list[tuple[str, int]]:
    """(range of the ratio, samples), from the first range that has any to the last."""
    edges = (0, *_RATIO_EDGES, float("inf"))
    ratios = ratios_of(found)
    counts = [sum(low <= r < high for r in ratios) for low, high in itertools.pairwise(edges)]
    shown = [i for i, n in enumerate(counts) if n]
    labels = [
        f"{low:g} to {high:g}" if high < float("inf") else f"{low:g} or more" for low, high in itertools.pairwise(edges)
    ]
    return [(labels[i], counts[i]) for i in range(shown[0], shown[-1] + 1)] if shown else []


def counts(found: Inspection) -> list[str]:
    """Pictures, families and answers in a line each."""
    examples = [sample.example for sample in found.samples]
    pictures = Counter(len(e.images) for e in examples)
    families = Counter(str(e.meta["family"]) for e in examples if "family" in e.meta)
    answers = Counter(e.answer for e in examples)
    lines = ["pictures a sample: " + ", ".join(f"{k} in {n}" for k, n in sorted(pictures.items()))]
    if found.sizes:
        small, large = (f"{w} x {h}" for w, h in (pick(found.sizes, key=lambda s: s[0] * s[1]) for pick in (min, max)))
        lines.append(f"picture sizes: {small} to {large} pixels, {len(set(found.sizes))} different")
    if families:
        lines.append("families: " + ", ".join(f"{printable(name)} {n}" for name, n in families.most_common()))
    top, n = answers.most_common(1)[0]
    lines.append(f"answers: {len(answers)} different; the most frequent, {top!r}, is right in {n / len(examples):.0%}")
    lines.append(f"with reasoning: {len(found.reasoned)} of {len(examples)}")
    if written := formats_of(found):
        lines.append("completions written as: " + ", ".join(f"{name} {n}" for name, n in written.most_common()))
    return lines


def lengths(found: Inspection) -> list[str]:
    """Both segments' lengths in a line each; nothing where there is no reasoning."""
    if not found.reasoned:
        return []
    think, answer = ([getattr(s, name) for s in found.reasoned] for name in ("think", "answer"))
    return [
        f"think {found.unit}: mean {mean(think):.0f}, median {median(think):.0f}, longest {max(think)}",
        f"answer {found.unit}: mean {mean(answer):.1f}, median {median(answer):.0f}, longest {max(answer)}",
    ]


def _share(found: Inspection) -> list[str]:
    share = found.think_share or 0.0
    return [f"plain SFT would spend {share:.1%} of its loss on thinking and {1 - share:.1%} on the answer"]


def _histogram(found: Inspection) -> list[str]:
    """One bar for each range of the think-to-answer ratio."""
    ratios, bars = ratios_of(found), histogram_of(found)
    most = max(n for _, n in bars)
    return [
        f"think-to-answer ratio: mean {mean(ratios):.1f}, median {median(ratios):.1f}",
        *(f"  {label:>12}  {'█' * round(_BAR_WIDTH * n / most)} {n}" for label, n in bars),
    ]


def printable(text: str) -> str:
    """Control characters in the data must not reach the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def told(twin: Twin) -> str:
    """One pair in words."""
    return f"{printable(twin.id)}: {_KINDS[twin.kind]} {printable(twin.other)}" + (
        f" of {twin.where}" if twin.where else ""
    )


def _twins(twins: Sequence[Twin], title: str) -> list[str]:
    if not twins:
        return []
    more = [f"  ... and {len(twins) - _SHOWN} more"] if len(twins) > _SHOWN else []
    return ["", f"{len(twins)} {title}:", *(f"  {told(twin)}" for twin in twins[:_SHOWN]), *more]
