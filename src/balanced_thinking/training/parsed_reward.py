"""What every reward of ours shares: it reads generated token ids with the parser of training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from balanced_thinking.models.processor_parts import tokenizer_of
from balanced_thinking.scoring.completion import Completion, parse_completion
from balanced_thinking.segments import ReasoningFormat


class ParsedReward:
    """A reward that sees completions parsed.

    It decodes the token ids itself: TRL's text lacks special tokens, and tags can be special tokens. `stops` are the
    tokens that end a turn: the tokenizer's, and those that the trainer adds because its model also stops there.
    `renderer` finds what a prompt has opened (`<think>`), which belongs to the completion's thinking.
    """

    def __init__(self, name: str, processor: Any, format: ReasoningFormat) -> None:
        self.__name__ = name
        self._tokenizer, self._format = tokenizer_of(processor), format
        self.stops = {self._tokenizer.eos_token_id}
        from balanced_thinking.batch.rendering import RowRenderer  # needs TRL, and `--help` needs the rewards' names

        self.renderer = RowRenderer(processor, format)

    def parse_completions(
        self, completion_ids: Sequence[Sequence[int]], prompts: Sequence[Any] | None
    ) -> Iterator[Completion]:
        for ids, prompt in zip(completion_ids, prompts or [""] * len(completion_ids), strict=True):
            opened = self.renderer.find_opened(prompt)
            yield parse_completion(ids, self.stops, self._tokenizer, self._format, opened=opened)

    def encode(self, text: str) -> list[int]:
        """The ids of a completion with this text, which ends its turn."""
        return [*self._tokenizer(text, add_special_tokens=False).input_ids, self._tokenizer.eos_token_id]
