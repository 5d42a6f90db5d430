"""What becomes of a completion, whoever generated it: parsed by the training's own parser, and scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from balanced_thinking.batch.answering import AnswerEnds
from balanced_thinking.batch.rendering import RowRenderer
from balanced_thinking.batch.turn_end import find_turn_end
from balanced_thinking.data.example import Example
from balanced_thinking.data.places import write_placeholders
from balanced_thinking.data.rows import prompt_messages
from balanced_thinking.models.processor_parts import tokenizer_of
from balanced_thinking.runs.records import Prediction
from balanced_thinking.scoring.completion import (
    WithheldCompletion,
    ends_with_answer_tag,
    has_text_after_answer,
    is_answer_complete,
    parse_completion,
)
from balanced_thinking.scoring.scorers import RAW_OUTPUT_SCORERS, ScorerError, score_against_all
from balanced_thinking.segments import ANSWER, THINK, Parsed, ReasoningFormat, get_format
from balanced_thinking.segments.parser import actual_format


class CompletionScorer:
    """Parses and scores completions.

    Args:
        processor: the model's, or its tokenizer. What its chat template opens at the end of a prompt (`<think>`)
            belongs to the completion's thinking.
        stops: the ids of the tokens that end its turn, besides the tokenizer's own and the chat template's.
        reasoning_format: name or definition of the format of the outputs.
    """

    def __init__(
        self,
        processor: Any,
        stops: Sequence[int] = (),
        reasoning_format: str | Mapping[str, Any] | ReasoningFormat = "think-answer",
    ) -> None:
        self.processor, self.tokenizer = processor, tokenizer_of(processor)
        self.turn_end = find_turn_end(processor)
        ends = {self.turn_end.id} if self.turn_end is not None else set()
        self.stops = sorted({*stops, self.tokenizer.eos_token_id, *ends} - {None})
        self.format = get_format(reasoning_format)
        self._renderer: RowRenderer | None = None

    @property
    def unnamed_stops(self) -> list[int]:
        """The stops besides the tokenizer's own, which an engine knows by itself."""
        return [stop for stop in self.stops if stop != self.tokenizer.eos_token_id]

    def find_opened(self, example: Example) -> str:
        """The thinking that the example's prompt has opened; "" for none."""
        if self._renderer is None or self._renderer.format is not self.format:
            self._renderer = RowRenderer(self.processor, self.format)
        return self._renderer.find_opened(prompt_messages(example), example.images)

    @property
    def ends(self) -> AnswerEnds:
        """Where completions in the present format may end."""
        return AnswerEnds(self.tokenizer, self.format, self.stops)

    def score_completion(self, example: Example, ids: list[int], scorer: str = "exact") -> Prediction:
        """The prediction in generated token ids, which may end with a stop token. An alternative is as right as the
        answer."""
        opened = self.find_opened(example)
        parsed, segments, stopped = parse_completion(ids, self.stops, self.tokenizer, self.format, opened=opened)
        text = parsed.text if scorer in RAW_OUTPUT_SCORERS else parsed.answer
        complete = is_answer_complete(parsed, stopped) or scorer in RAW_OUTPUT_SCORERS
        if scorer == "official":  # ScienceQA's script guesses where an answer is missing
            text, complete = (text if complete else None), True
        answers = (example.answer, *example.alternatives)
        try:
            score = score_against_all(scorer, text, answers, example.choices) if complete else 0.0
        except ScorerError as error:
            raise ScorerError(f"item {example.id}: {error}") from error
        open_end = not stopped and not self._closes_answer(parsed)
        withheld = ids.reason if open_end and isinstance(ids, WithheldCompletion) else ""
        return Prediction(
            id=example.id,
            question=write_placeholders(example.question, example.image_places),
            gold=example.answer,
            prediction=parsed.answer,
            correct=score >= 1.0,
            score=score,
            problems=list(parsed.problems),
            malformed=parsed.answer is None,
            truncated=open_end and not withheld,
            withheld=withheld,
            think_tokens=segments.count(THINK),
            answer_tokens=segments.count(ANSWER) + stopped,
            completion=parsed.text,
            family=example.meta.get("family"),
            choices=list(example.choices),
        )

    def _closes_answer(self, parsed: Parsed) -> bool:
        return ends_with_answer_tag(actual_format(parsed, self.format)) and has_text_after_answer(parsed)
