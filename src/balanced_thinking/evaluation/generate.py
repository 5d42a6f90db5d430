"""Batched greedy generation and scoring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from balanced_thinking.batch import ScaleCollator
from balanced_thinking.data.example import Example
from balanced_thinking.data.images import open_image
from balanced_thinking.data.rows import prompt
from balanced_thinking.evaluation.scorers import get_scorer
from balanced_thinking.segments import ANSWER, THINK, Parsed, ReasoningFormat, generated_segments, get_format, parse

NOTHING = "there is nothing to evaluate: the data holds no example; check --data, --split and --limit"
# A closing tag and what stands around it: no built-in tag takes more tokens.
_TAG_TOKENS = 16


@dataclass(frozen=True)
class Prediction:
    """One scored sample. `think_tokens` and `answer_tokens` count the tokens that were generated, tags included.

    An answer that was cut off is kept as `prediction`, but is never correct: of 12, only the 1 may be there.
    """

    id: str
    question: str
    gold: str
    prediction: str | None
    correct: bool
    problems: list[str]
    malformed: bool
    truncated: bool
    think_tokens: int
    answer_tokens: int
    completion: str
    family: str | None = None
    choices: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)


class Generator:
    """Greedy answers of one model to batches of examples.

    Args:
        model: a generating model in evaluation mode; processor: what prepares its input.
        reasoning_format: how thoughts and answer are told apart.
        max_new_tokens: where a completion is cut off (and counted as truncated).
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        reasoning_format: str | Mapping[str, Any] | ReasoningFormat = "think-answer",
        max_new_tokens: int = 512,
    ) -> None:
        self.model = model.eval()
        self.format, self.max_new_tokens = get_format(reasoning_format), max_new_tokens
        self.collator = ScaleCollator(processor, self.format)
        self.tokenizer = self.collator.tokenizer

    def refuse(self, examples: Sequence[Example]) -> None:
        """Raises ValueError where there is no example, or one has a picture that the model would never see."""
        if not examples:
            raise ValueError(NOTHING)
        sees = hasattr(self.collator.processor, "image_processor")
        if pictured := [example.id for example in examples if example.images and not sees]:
            raise ValueError(
                f"the model takes text only, but {len(pictured)} of {len(examples)} examples have pictures "
                f"({pictured[0]} is the first); choose a vision-language --model, or --data without pictures"
            )

    @torch.inference_mode()
    def complete(self, examples: Sequence[Example]) -> list[list[int]]:
        """The generated token ids, without padding and up to and including the stop token."""
        rows = [{"id": e.id, "prompt": prompt(e), "images": [open_image(i) for i in e.images]} for e in examples]
        inputs = {k: v.to(self.model.device) for k, v in self.collator.prompts(rows).items()}
        config = GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            eos_token_id=self._stops(),
            pad_token_id=self.tokenizer.pad_token_id,
        )
        prompt_length = inputs["input_ids"].shape[1]
        closed = AnswerClosed(self.tokenizer, self.format, prompt_length)
        sequences = self.model.generate(
            **inputs, generation_config=config, stopping_criteria=StoppingCriteriaList([closed])
        )
        return [self._cut(ids) for ids in sequences[:, prompt_length:].tolist()]

    def _stops(self) -> list[int]:
        stops = self.model.generation_config.eos_token_id
        stops = [stops] if isinstance(stops, int) else list(stops or [])
        return sorted({*stops, self.tokenizer.eos_token_id})

    def _cut(self, ids: list[int]) -> list[int]:
        stops, filler = set(self._stops()), self.tokenizer.pad_token_id
        for i, token in enumerate(ids):
            if token in stops or token == filler:  # a row that has closed its answer is filled up
                return ids[: i + (token in stops)]
        return ids

    def score(self, example: Example, ids: list[int], scorer: str = "exact") -> Prediction:
        """One completion, parsed by the training's own parser and scored."""
        stopped = bool(ids) and ids[-1] in self._stops()
        parsed, segments = generated_segments(ids[: len(ids) - stopped], self.tokenizer, self.format)
        right = get_scorer(scorer)(parsed.answer, example.answer, example.choices) >= 1.0
        return Prediction(
            id=example.id,
            question=example.question,
            gold=example.answer,
            prediction=parsed.answer,
            correct=right and (stopped or _is_closed(parsed)),
            problems=list(parsed.problems),
            malformed=parsed.answer is None,
            truncated=not stopped and not (_ends_with_answer(self.format) and _is_closed(parsed)),
            think_tokens=segments.count(THINK),
            answer_tokens=segments.count(ANSWER) + stopped,
            completion=parsed.text,
            family=example.meta.get("family"),
            choices=list(example.choices),
        )


class AnswerClosed(StoppingCriteria):
    """Ends a row of a generation once its answer is closed as the format closes it: what follows can't change it."""

    def __init__(self, tokenizer: Any, format: ReasoningFormat, prompt_length: int) -> None:
        self.tokenizer, self.format, self.prompt_length = tokenizer, format, prompt_length
        self.tag = format.answer_close if _ends_with_answer(format) else ""

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        closed = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        if not self.tag:
            return closed
        written = input_ids[:, self.prompt_length :]
        tails = self.tokenizer.batch_decode(written[:, -_TAG_TOKENS:], skip_special_tokens=False)
        for row in [row for row, tail in enumerate(tails) if self.tag in tail]:
            parsed = parse(self.tokenizer.decode(written[row], skip_special_tokens=True), self.format)
            closed[row] = parsed.answer is not None and not parsed.problems and _is_closed(parsed)
        return closed


def in_batches(examples: Sequence[Example], batch_size: int) -> list[list[int]]:
    """Indices of the examples, like lengths together, the longest questions first: what does not fit in memory fails
    at once."""
    order = sorted(range(len(examples)), key=lambda i: (-len(examples[i].images), -len(examples[i].question), i))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def predict(
    generator: Generator, examples: Sequence[Example], *, batch_size: int = 64, scorer: str = "exact"
) -> Iterator[Prediction]:
    """Predictions in the order of the examples."""
    for start in range(0, len(examples), batch_size):
        chunk = examples[start : start + batch_size]
        for example, ids in zip(chunk, generator.complete(chunk), strict=True):
            yield generator.score(example, ids, scorer)


def _ends_with_answer(format: ReasoningFormat) -> bool:
    """Whether a completion is over once its answer is closed: not where prose, a wrapping tag or a box may follow."""
    return bool(format.answer_close) and not (format.prose or any(format.wrap) or format.answer_close == "}")


def _is_closed(parsed: Parsed) -> bool:
    """Whether anything follows the answer, so that it cannot have been cut off in the middle."""
    return parsed.answer_span is not None and parsed.answer_span[1] < len(parsed.text.rstrip())
