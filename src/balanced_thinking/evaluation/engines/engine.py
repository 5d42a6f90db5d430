"""What becomes of a completion, whoever generated it: taken apart by the training's own parser, and scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from balanced_thinking.data.example import Example
from balanced_thinking.runs.records import Prediction
from balanced_thinking.scoring.completion import (
    ends_after_answer,
    has_text_after_answer,
    is_answer_complete,
    parse_completion,
)
from balanced_thinking.scoring.scorers import RAW_OUTPUT_SCORERS, get_scorer
from balanced_thinking.segments import ANSWER, THINK, Parsed, ReasoningFormat, get_format, parse

NOTHING = "there is nothing to evaluate: the data holds no example; check --data, --split and --limit"


class Judge:
    """Scores completions.

    Args:
        tokenizer: of the model. stops: the tokens that end its turn.
        reasoning_format: how thoughts and answer are told apart.
        max_new_tokens: where a completion is cut off (and counted as truncated).
    """

    def __init__(
        self,
        tokenizer: Any,
        stops: Sequence[int],
        reasoning_format: str | Mapping[str, Any] | ReasoningFormat = "think-answer",
        max_new_tokens: int = 512,
    ) -> None:
        self.tokenizer, self.stops = tokenizer, sorted({*stops, tokenizer.eos_token_id})
        self.format, self.max_new_tokens = get_format(reasoning_format), max_new_tokens

    def ends(self, parsed: Parsed) -> bool:
        """Whether a completion is over: its answer closed as the format closes it, and nothing to complain about."""
        return parsed.answer is not None and not parsed.problems and has_text_after_answer(parsed)

    def _format_of(self, parsed: Parsed) -> ReasoningFormat:
        return get_format(parsed.format) if self.format.name == "auto" else self.format

    def score(self, example: Example, ids: list[int], scorer: str = "exact") -> Prediction:
        """One completion, parsed by the training's own parser and scored."""
        parsed, segments, stopped = parse_completion(ids, self.stops, self.tokenizer, self.format)
        said = parsed.text if scorer in RAW_OUTPUT_SCORERS else parsed.answer
        whole = is_answer_complete(parsed, stopped) or scorer in RAW_OUTPUT_SCORERS
        if scorer == "official":  # its script guesses, whatever is missing
            said, whole = (said if whole else None), True
        score = get_scorer(scorer)(said, example.answer, example.choices) if whole else 0.0
        return Prediction(
            id=example.id,
            question=example.question,
            gold=example.answer,
            prediction=parsed.answer,
            correct=score >= 1.0,
            score=score,
            problems=list(parsed.problems),
            malformed=parsed.answer is None,
            truncated=not stopped
            and not (ends_after_answer(self._format_of(parsed)) and has_text_after_answer(parsed)),
            think_tokens=segments.count(THINK),
            answer_tokens=segments.count(ANSWER) + stopped,
            completion=parsed.text,
            family=example.meta.get("family"),
            choices=list(example.choices),
        )


class Engine(Judge, ABC):
    """Who answers, and judges what it answered: a model in this process (`Generator`, `Vllm`) or behind
    a server (`Server`). `engine` is its name in summaries."""

    engine = "transformers"

    def refuse(self, examples: Sequence[Example]) -> None:
        """Raises ValueError where there is no example."""
        if not examples:
            raise ValueError(NOTHING)

    @abstractmethod
    def complete(self, examples: Sequence[Example]) -> list[list[int]]:
        """The generated token ids, without padding and up to and including the stop token."""

    def ids_of(self, text: str, stopped: bool) -> list[int]:
        """The tokens of a completion that came as text; it ends where `Generator` would have ended it."""
        tag, end = self.format.answer_close if ends_after_answer(self.format) else "", 0
        while tag and (found := text.find(tag, end)) >= 0:
            end = found + len(tag)
            if self.ends(parse(text[:end], self.format)):
                return self.tokenizer(text[:end], add_special_tokens=False)["input_ids"]
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        eos = self.tokenizer.eos_token_id
        return [*ids, eos] if stopped and ids[-1:] != [eos] else ids
