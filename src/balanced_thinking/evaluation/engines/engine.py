"""What generates the completions of an evaluation. To add an engine, write a subclass with `complete`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from balanced_thinking.data.example import Example
from balanced_thinking.evaluation.completion_scorer import CompletionScorer
from balanced_thinking.evaluation.sampling import Sampling
from balanced_thinking.segments import ReasoningFormat, get_format, parse

# Closing tags of an answer at which a text may end. Each costs a parse of all text before it: a text of 100 kB of tags
# would take minutes.
_MOST_CLOSINGS = 50
# Is given the ids that were generated so far, and says whether generation goes on.
Listener = Callable[[list[int]], bool]


class Engine(ABC):
    """Generates completions. `name` is what summaries call it, `served_model` what a server calls the model.

    `sampling` says how tokens are chosen. An engine that obeys it sets `can_sample`. One that does not is greedy, and
    is not asked for anything else.

    Args:
        scorer: parses and scores what is generated; it has the model's tokenizer.
        max_new_tokens: the limit of a completion; a longer one counts as truncated.
    """

    name = "transformers"
    sampling = Sampling()
    can_sample = False
    served_model = ""

    def __init__(self, scorer: CompletionScorer, max_new_tokens: int = 512) -> None:
        self.scorer, self.max_new_tokens = scorer, max_new_tokens

    @property
    def tokenizer(self) -> Any:
        return self.scorer.tokenizer

    def configure(self, reasoning_format: str | Mapping[str, Any] | ReasoningFormat, max_new_tokens: int) -> None:
        """Prepare for the next evaluation, which may have another format and limit."""
        self.scorer.format, self.max_new_tokens = get_format(reasoning_format), max_new_tokens

    def reason_for_refusal(self, examples: Sequence[Example]) -> str | None:
        """Why these examples cannot be answered; None where they can. An engine that refuses some overrides it."""
        return None

    @abstractmethod
    def complete(self, examples: Sequence[Example]) -> list[list[int]]:
        """The generated token ids, without padding, up to and including the stop token."""

    def stream(self, example: Example, listener: Listener) -> list[int]:
        """`complete` for one example; an engine that generates token by token overrides it and calls the listener."""
        return self.complete([example])[0]

    def abort(self) -> None:  # noqa: B027  (an engine that listens has nothing to give up)
        """Give up what another thread is generating, where `stream` does not call its listener."""

    def tokenize_completion(self, text: str, stopped: bool, opened: str = "") -> list[int]:
        """The ids of a completion that came as text, cut where `LocalEngine` would have stopped it.

        `opened` is the thinking that its prompt has opened, as `CompletionScorer.find_opened` gives it.
        """
        ends, end = self.scorer.ends, 0
        tag, turn_end = ends.closing_tag, self._find_turn_end(text)
        for _ in range(_MOST_CLOSINGS if tag else 0):
            if (found := text.find(tag, end, turn_end)) < 0:
                break
            end = found + len(tag)
            if ends.is_complete(parse(text[:end], self.scorer.format, opened=opened)):
                return self.tokenizer(text[:end], add_special_tokens=False)["input_ids"]
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        stop = next((i for i, one in enumerate(ids) if one in self.scorer.stops), None)
        if stop is not None:
            return ids[: stop + 1]
        return [*ids, self.tokenizer.eos_token_id] if stopped else ids

    def _find_turn_end(self, text: str) -> int:
        """Where the first token that ends the turn begins; the end of the text where there is none."""
        stops = {token for token, index in self.tokenizer.get_added_vocab().items() if index in self.scorer.stops}
        return min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))
