"""Batched greedy generation in this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from balanced_thinking.batch import ScaleCollator
from balanced_thinking.data.example import Example
from balanced_thinking.data.images import open_image
from balanced_thinking.data.rows import prompt
from balanced_thinking.evaluation.judge import Engine, Judge, Prediction, ends_with_answer
from balanced_thinking.segments import ReasoningFormat, generated_segments

# A closing tag and what stands around it: no built-in tag takes more tokens.
_TAG_TOKENS = 16


class Generator(Engine):
    """Greedy answers of a model in this process to batches of examples.

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
        stops = model.generation_config.eos_token_id
        stops = [stops] if isinstance(stops, int) else list(stops or [])
        super().__init__(getattr(processor, "tokenizer", processor), stops, reasoning_format, max_new_tokens)
        self.model, self.collator = model.eval(), ScaleCollator(processor, self.format)

    def refuse(self, examples: Sequence[Example]) -> None:
        """Raises ValueError where there is no example, or one has a picture that the model would never see."""
        super().refuse(examples)
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
            eos_token_id=self.stops,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        prompt_length = inputs["input_ids"].shape[1]
        closed = AnswerClosed(self, prompt_length)
        sequences = self.model.generate(
            **inputs, generation_config=config, stopping_criteria=StoppingCriteriaList([closed])
        )
        rows_of_ids = sequences[:, prompt_length:].tolist()
        return [self._cut(ids[: closed.ends.get(row)]) for row, ids in enumerate(rows_of_ids)]

    def _cut(self, ids: list[int]) -> list[int]:
        stops = set(self.stops)
        end = next((i + 1 for i, token in enumerate(ids) if token in stops), len(ids))
        return ids[:end]


class AnswerClosed(StoppingCriteria):
    """Ends a row of a generation at the first closing tag of an answer with nothing wrong before it."""

    def __init__(self, judge: Judge, prompt_length: int) -> None:
        self.judge, self.prompt_length = judge, prompt_length
        self.tag = judge.format.answer_close if ends_with_answer(judge.format) else ""
        self.ends: dict[int, int] = {}  # row -> tokens until it was closed; what follows is filling

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        closed = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        if not self.tag:
            return closed
        written = input_ids[:, self.prompt_length :]
        tails = self.judge.tokenizer.batch_decode(written[:, -_TAG_TOKENS:], skip_special_tokens=False)
        for row in [row for row, tail in enumerate(tails) if self.tag in tail and row not in self.ends]:
            parsed, _ = generated_segments(written[row].tolist(), self.judge.tokenizer, self.judge.format)
            if self.judge.ends(parsed):
                self.ends[row] = written.shape[1]
        closed[list(self.ends)] = True
        return closed


def predict(
    generator: Generator, examples: Sequence[Example], *, batch_size: int = 64, scorer: str = "exact"
) -> Iterator[Prediction]:
    """Predictions in the order of the examples."""
    for start in range(0, len(examples), batch_size):
        chunk = examples[start : start + batch_size]
        for example, ids in zip(chunk, generator.complete(chunk), strict=True):
            yield generator.score(example, ids, scorer)
