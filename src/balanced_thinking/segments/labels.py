"""Labels of any training loop -> a segment for each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from balanced_thinking.segments.formats import ReasoningFormat
from balanced_thinking.segments.parser import IGNORE
from balanced_thinking.segments.tokens import generated_segments

UNSUPERVISED = -100  # the label of a position that costs nothing, as in torch
_SHOWN = 80  # characters of a text in a message


def label_segments(
    labels: Any,
    tokenizer: Any,
    format: str | Mapping[str, Any] | ReasoningFormat = "think-answer",
    opened: str = "",
) -> list[list[int]]:
    """IGNORE, THINK or ANSWER for every label of a batch.

    Labels that follow each other without -100 in between are one completion, so a conversation may have several.

    Args:
        labels: (B, L) token ids as a tensor or lists, -100 where nothing is supervised; not shifted.
        tokenizer: the one that made them.
        format: of the completions, by name or definition.
        opened: what the prompt has opened, such as `<think>`, so that the completion begins inside of it.

    Raises ValueError where a completion has no answer: with nothing to weigh, it would be trained on as thinking alone.
    """
    rows = labels.tolist() if hasattr(labels, "tolist") else labels
    return [_segments_of_row(row, place, tokenizer, format, opened) for place, row in enumerate(rows)]


def _segments_of_row(row: Sequence[int], place: int, tokenizer: Any, format: Any, opened: str) -> list[int]:
    segments: list[int] = []
    for is_supervised, run in groupby(row, key=lambda label: label != UNSUPERVISED):
        ids = list(run)
        if not is_supervised:
            segments += [IGNORE] * len(ids)
            continue
        parsed, found = generated_segments(ids, tokenizer, format, opened)
        if parsed.answer is None:
            raise ValueError(
                f"row {place} of the batch has a completion without an answer ({', '.join(parsed.problems)}): "
                f"{parsed.text[-_SHOWN:]!r}; expected the format {parsed.format}: leave the row out, do not cut "
                "completions off, or name another format"
            )
        segments += found
    return segments
