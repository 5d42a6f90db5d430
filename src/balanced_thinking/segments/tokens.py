"""Character spans -> one segment per token, for the tokens of a text or for token ids that a model generated."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

from balanced_thinking.segments.formats import ReasoningFormat
from balanced_thinking.segments.parser import ANSWER, THINK, Parsed, parse


def token_segments(parsed: Parsed, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """THINK or ANSWER for each token, given the (start, end) character offsets of the tokens of `parsed.text`.

    A token across the border belongs to the segment of its first non-space character. A token of zero width, such as an
    added EOS, belongs to the segment of the token before it. At the start it belongs to that of the next one. Without
    an answer all is THINK. Raises ValueError for offsets beyond the text.
    """
    length = len(parsed.text)
    if any(end > length for _, end in offsets):
        found = max(end for _, end in offsets)
        raise ValueError(
            f"token offsets reach {found}, but the parsed text has {length} characters: pass the offsets of"
            " a tokenization of parsed.text itself, without the prompt"
        )
    border = next((span.start for span in parsed.spans if span.segment == ANSWER), length + 1)
    # The character before the border is never white space (`parse` gives that to the next segment). So a token that
    # starts before the border has its first non-space character there, and comparing its start is enough.
    starts = [start for start, end in offsets if end > start]
    segment = ANSWER if (starts[0] if starts else 0) >= border else THINK
    segments = []
    for start, end in offsets:
        if end > start:
            segment = ANSWER if start >= border else THINK
        segments.append(segment)
    return segments


def generated_segments(
    ids: Sequence[int],
    tokenizer: Any,
    format: str | Mapping[str, Any] | ReasoningFormat = "think-answer",
    opened: str = "",
) -> tuple[Parsed, list[int]]:
    """The parsed text of generated token ids, and THINK or ANSWER for each id.

    Tokenizing the text again may give other ids than the model generated. So the border is searched among the generated
    ids, with O(log n) decodings: the first id that starts at or after the answer's first character. `opened` is as for
    `parse`.
    """

    def decode_first(count: int) -> str:
        return tokenizer.decode(ids[:count], skip_special_tokens=False, clean_up_tokenization_spaces=False)

    parsed = parse(decode_first(len(ids)), format, opened=opened)
    border = next((span.start for span in parsed.spans if span.segment == ANSWER), None)
    if border is None:
        return parsed, [THINK] * len(ids)

    def count_characters(count: int) -> int:
        """Complete ones: a part of a character decodes to signs for unreadable ones, perhaps more than one."""
        text = decode_first(count)
        return len(text if parsed.text.startswith(text) else text.rstrip("\ufffd"))

    first = bisect_left(range(len(ids)), border, key=count_characters)
    return parsed, [THINK] * first + [ANSWER] * (len(ids) - first)
