"""What to change in the data before training."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from balanced_thinking.data.columns import PROSE
from balanced_thinking.data.example import choices_are_shown, find_unread_texts
from balanced_thinking.data.prose import split_prose
from balanced_thinking.data.tag_hints import find_row_hint
from balanced_thinking.inspection.facts import Inspection
from balanced_thinking.inspection.summary import MAX_LENGTHS, count_formats, make_printable, median_length_ratio

_SLACK = 1.05  # the counted total leaves out the tokens around a picture
_SHOWN_IDS = 3
_NO_TAGS = ("no_think", "no_answer")  # the problems of a completion without any tag
_LONG_RATIO = 20  # from here on the answer gets less than 5 % of plain SFT's loss
# What is read under names that are known, but hold something else.
_FORMS_OF_LISTS = {
    "options": "a list of options, such as dog | cat",
    "history": "a list of turns, or of pairs of a question and a reply",
}


def advise_changes(found: Inspection) -> list[str]:
    """One line per change, most urgent first."""
    changes = [
        *_advise_on_leaks(found),
        *_advise_on_bad_rows(found),
        *([f"remove the samples that repeat an earlier one ({len(found.repeats)})"] if found.repeats else []),
        *_advise_on_format(found),
        *_advise_on_reasoning(found),
        *_advise_on_unread_values(found),
        *_advise_on_plain_pictures(found),
        *_advise_on_length(found),
    ]
    if found.leaks or found.repeats:
        out = "clean.jsonl" if Path(found.data).name != "clean.jsonl" else "cleaner.jsonl"
        named = " ".join(map(shlex.quote, found.names))
        named += "" if found.split == "train" else f" --split {shlex.quote(found.split)}"
        changes.append(
            f"balanced inspect {named} ... --rows rows.csv lists these samples, and balanced convert {named} "
            f"--without rows.csv --out {out} removes them"
        )
    return changes or ["nothing needs to be changed"]


def _advise_on_leaks(found: Inspection) -> Iterator[str]:
    if not found.samples and not found.bad_rows:
        yield "there is no row: check the file and the split"
    if found.leaks:
        yield f"remove the samples that are in a test split ({len(found.leaks)}): they raise the benchmark's score"
    if found.shared_questions:
        yield (
            f"check the samples that ask a test item's question about another picture ({len(found.shared_questions)}): "
            "the question alone may reveal the answer"
        )


def _advise_on_bad_rows(found: Inspection) -> Iterator[str]:
    if not found.bad_rows:
        return
    counts = Counter(name for bad in found.bad_rows for name in bad.problems)
    named = ", ".join(f"{name} {n}" for name, n in counts.most_common())
    otherwise = ", or leave them out with --on-bad-row drop" if found.samples else ": there is no good one"
    yield f"fix the bad rows ({named}){otherwise}"
    unanswered = [bad for bad in found.bad_rows if "no_answer" in bad.problems]
    if prose := sum(split_prose(bad.text) is not None for bad in unanswered):
        yield f"--data_options.format prose reads the bad rows that end in a sentence with the answer ({prose})"
    if plain := sum(bad.problems == _NO_TAGS and find_row_hint(bad.text, bad.problems) is None for bad in unanswered):
        yield (
            f"--data_options.format direct reads completions without reasoning as answers ({plain} have no tags): for "
            "evaluation, for GRPO, and to train with reasoning_format: direct"
        )


def _advise_on_format(found: Inspection) -> Iterator[str]:
    """Which format to train in, if the completions in the data are written in another one."""
    written = count_formats(found).most_common()
    if not written or [name for name, _ in written] == [found.format] or written[0][0] == PROSE:
        return
    named = ", ".join(f"{name} {n}" for name, n in written)
    kept = "the most frequent one" if len(written) > 1 else "it"
    yield (
        f"completions are written as {named}, but training writes all of them as {found.format}: "
        f"reasoning_format: {written[0][0]} keeps {kept}"
    )


def _advise_on_reasoning(found: Inspection) -> Iterator[str]:
    if found.samples and not found.samples_with_reasoning:
        texts = ", ".join(sorted({key for sample in found.samples for key in find_unread_texts(sample.example)}))
        hint = f" (it is read under think or reasoning; not under {make_printable(texts)})" if texts else ""
        yield f"there is no reasoning to train on{hint}: the data can be used for evaluation and for GRPO"
    elif missing := len(found.samples) - len(found.samples_with_reasoning):
        yield f"reasoning is missing in {missing} of {len(found.samples)} samples: add it, or leave them out"
    if (ratio := median_length_ratio(found)) is not None and ratio >= _LONG_RATIO:
        yield (
            f"with a median ratio of {ratio:.0f}, the answer gets {1 - (found.think_loss_share or 0):.1%} of plain "
            "SFT's loss: compare the weightings scale and uniform with `balanced study`"
        )


def _advise_on_unread_values(found: Inspection) -> Iterator[str]:
    """What the rows have and the model never sees."""
    if hidden := sum(not choices_are_shown(sample.example) for sample in found.samples):
        yield (
            f"{hidden} samples have choices that the question does not show: --data_options.list_choices true lists "
            "them in it"
        )
    if found.unread_pictures:
        names = ", ".join(f"{make_printable(name)} {n}" for name, n in sorted(found.unread_pictures.items()))
        yield (f"nothing reads the pictures under {names}: if they are needed, list all pictures of a row under images")
    for name, form in _FORMS_OF_LISTS.items():
        if count := found.unread_texts.get(name):
            yield f"nothing reads the text under {name} ({count}): expected {form}"
    others = {name: n for name, n in found.unread_texts.items() if name not in _FORMS_OF_LISTS}
    if others and found.samples_with_reasoning:
        names = ", ".join(f"{make_printable(name)} {n}" for name, n in sorted(others.items()))
        yield (
            f"nothing reads the texts under {names}: if one is needed, say what it is with --data_options.columns "
            "'{think: NAME}'"
        )


def _advise_on_plain_pictures(found: Inspection) -> Iterator[str]:
    if found.plain_pictures:
        named = make_printable(", ".join(found.plain_pictures[:_SHOWN_IDS]))
        more = " ..." if len(found.plain_pictures) > _SHOWN_IDS else ""
        yield (
            f"{len(found.plain_pictures)} pictures have a single color (samples {named}{more}): look at them; what is "
            "transparent becomes white"
        )


def _advise_on_length(found: Inspection) -> Iterator[str]:
    if (option := found.picture_option) is not None:
        value = str(option.value).lower() if isinstance(option.value, bool) else option.value
        yield (
            f"{option.samples} samples are long because of their pictures: with --image_options.{option.name} {value} "
            f"the longest of them has about {option.longest} tokens; try that, here too, before you raise max_length"
        )
    if longest := max(found.totals, default=0):
        fitting = next((length for length in MAX_LENGTHS if length >= _SLACK * longest), None)
        yield f"max_length: {fitting or 'null'} cuts nothing (the longest sample has about {longest} tokens)"
