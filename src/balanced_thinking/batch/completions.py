"""Completions -> token ids with a segment each, within `max_length`.

A completion is tokenized once, as a whole. Its segments come from the character offsets of that tokenization, so the
token ids are those of plain tokenization.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from balanced_thinking.batch.rendering import RenderedRow
from balanced_thinking.config.errors import UsageError
from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.segments import Parsed, ReasoningFormat, parse, token_segments
from balanced_thinking.segments.closing import mark_closing_tokens
from balanced_thinking.segments.parser import actual_format
from balanced_thinking.segments.trim import OVERFLOW, SENTENCE_GAPS, WORD_GAPS, split_longest_think, trim_think


class SlowTokenizerError(UsageError, ValueError):
    """A tokenizer that gives no offsets."""


@dataclass(frozen=True)
class Completion:
    """One tokenized completion: ids and segments, and where asked for marks of closing tags, all of its length."""

    ids: list[int]
    segments: list[int]
    closing: list[int] = field(default_factory=list)  # as `mark_closing_tokens` returns them


@dataclass(frozen=True)
class CompletionEncoder:
    """Parses, tokenizes and shortens completions. The fields are as `ScaleCollator` documents them.

    With `marks_closing` completions have marks of their closing tags.
    """

    tokenizer: Any
    format: ReasoningFormat
    max_length: int | None
    overflow: str
    marks_closing: bool = False

    def __post_init__(self) -> None:
        if self.overflow not in OVERFLOW:
            raise ValueError(f"overflow is {self.overflow!r}; known: {', '.join(OVERFLOW)}")

    def encode_completion(self, row_id: str, rendered: RenderedRow, prompt_length: int) -> Completion | None:
        """The completion of a rendered row; None where the overflow policy drops the sample.

        Raises RowError for a row without an answer, and for one that is too long.
        """
        parsed = self.parse_completion(row_id, rendered)
        completion = self.tokenize_parsed(parsed, rendered.end)
        length = prompt_length + len(completion.ids)
        if self.max_length is None or length <= self.max_length:
            return completion
        if self.overflow == "drop":
            return None
        trimmed = (
            self._trim_reasoning(parsed, self.max_length - prompt_length, rendered.end)
            if self.overflow == "trim_think"
            else None
        )
        if trimmed is None:
            trim = "overflow=trim_think to shorten its reasoning, " if self.overflow == "error" else ""
            raise RowError(
                f"sample {row_id} has {length} tokens ({prompt_length} of them prompt and images), but max_length "
                f"is {self.max_length}; raise max_length, or set {trim}overflow=drop to leave such samples out",
                "too_long",
            )
        return trimmed

    def parse_completion(self, row_id: str, rendered: RenderedRow) -> Parsed:
        """The parsed completion. Raises RowError if it has no answer."""
        parsed = parse(rendered.completion, self.format, opened=rendered.opened)
        if parsed.answer is None:
            raise RowError(
                f"sample {row_id}: no answer was found in its completion ({', '.join(parsed.problems)}) with "
                f"reasoning_format {self.format.name!r}: {rendered.completion[:80]!r}; fix the row, choose the data's "
                "reasoning_format, or load the data with --on-bad-row drop",
                "no_answer",
            )
        return parsed

    def refuse_slow_tokenizer(self) -> None:
        """Raises UsageError for a tokenizer without offsets: nobody could say which segment a token is in."""
        if not self.tokenizer.is_fast:
            raise SlowTokenizerError(
                f"the tokenizer is a {type(self.tokenizer).__name__}, which does not say where in a text its tokens "
                "are; expected a fast one: use a checkpoint with a tokenizer.json, or convert this tokenizer"
            )

    def tokenize_parsed(self, parsed: Parsed, end: str | None = None) -> Completion:
        """Ids and segments of a parsed completion; `end` is its end token."""
        self.refuse_slow_tokenizer()
        encoded = self.tokenizer(parsed.text, add_special_tokens=False, return_offsets_mapping=True)
        offsets = encoded["offset_mapping"]
        closing = mark_closing_tokens(parsed, self.format, offsets, end) if self.marks_closing else []
        return Completion(encoded["input_ids"], token_segments(parsed, offsets), closing)

    def _trim_reasoning(self, parsed: Parsed, max_tokens: int, end: str | None) -> Completion | None:
        """The longest trimmed completion of at most `max_tokens` tokens.

        Cuts at sentences; at words where no complete sentence fits. None where nothing fits.
        """
        format = actual_format(parsed, self.format)
        for pattern in (SENTENCE_GAPS, WORD_GAPS):
            units = split_longest_think(parsed, pattern, format)
            best, low, high = None, 1, len(units) - 1
            while low <= high:
                middle = (low + high) // 2
                text = trim_think(parsed, middle, units)
                candidate = self.tokenize_parsed(parse(text, self.format, opened=parsed.opened), end)
                if len(candidate.ids) <= max_tokens:
                    best, low = candidate, middle + 1
                else:
                    high = middle - 1
            if best is not None:
                return best
        return None
