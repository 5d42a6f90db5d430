"""Greedy answers of a model to rows of a data set, each up to the end of its turn or of its answer."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.batch.turn_end import find_turn_end, stop_token_ids
from balanced_thinking.packing.probe import evaluation_mode
from balanced_thinking.scoring.completion import (
    Completion,
    ends_with_answer_tag,
    has_text_after_answer,
    parse_completion,
)
from balanced_thinking.segments import Parsed, ReasoningFormat, generated_segments

_TAG_TOKENS = 16  # a closing tag and the text around it: no built-in tag takes more


@dataclass(frozen=True)
class AnswerEnds:
    """Where generation may end: at a stop token, and after the first closing tag of a well-formed answer."""

    tokenizer: Any
    format: ReasoningFormat
    stops: Collection[int]

    @property
    def closing_tag(self) -> str:
        """The tag after which a completion may end early; empty where the format allows text after the answer."""
        return self.format.answer_close if ends_with_answer_tag(self.format) else ""

    def is_complete(self, parsed: Parsed) -> bool:
        """Whether the answer is closed and the parser has no complaint."""
        return parsed.answer is not None and not parsed.problems and has_text_after_answer(parsed)

    def find_ended_rows(
        self, written_BL: torch.Tensor, opened: Sequence[str] = (), known: Collection[int] = ()
    ) -> Iterator[int]:
        """The rows of generated tokens that end with the last token; `known` ones may be among them.

        `opened` is the thinking that each row's prompt has opened; () for none.
        """
        yield from (row for row, token in enumerate(written_BL[:, -1].tolist()) if token in self.stops)
        if not (tag := self.closing_tag):
            return
        tails = self.tokenizer.batch_decode(written_BL[:, -_TAG_TOKENS:], skip_special_tokens=False)
        for row in [row for row, tail in enumerate(tails) if tag in tail and row not in known]:
            before = opened[row] if opened else ""
            parsed, _ = generated_segments(written_BL[row].tolist(), self.tokenizer, self.format, opened=before)
            if self.is_complete(parsed):
                yield row


class RowAnswerer:
    """Answers rows of `prompt` and `images` with the model in its present state, and takes the answers apart.

    Args:
        model: a generating model, without a wrapper. Its own defaults of generation do not count.
        collator: encodes the prompts, and has the reasoning format.
        max_new_tokens: the limit of an answer.
    """

    def __init__(self, model: Any, collator: ScaleCollator, max_new_tokens: int) -> None:
        self.model, self.collator, self.max_new_tokens = model, collator, max_new_tokens
        self.tokenizer, self.format = collator.tokenizer, collator.renderer.format
        end = find_turn_end(collator.processor)
        own = [*stop_token_ids(model.generation_config, self.tokenizer), self.tokenizer.eos_token_id]
        stops = sorted({stop for stop in (*own, end and end.id) if stop is not None})
        self.ends = AnswerEnds(self.tokenizer, self.format, stops)

    @torch.no_grad()
    def answer_rows(self, rows: Sequence[Mapping[str, Any]]) -> list[Completion]:
        """One parsed completion a row."""
        opened = [self.collator.renderer.find_opened(row["prompt"], row.get("images") or []) for row in rows]
        inputs = {name: value.to(self.model.device) for name, value in self.collator.collate_prompts(rows).items()}
        prompt_length = inputs["input_ids"].shape[1]
        ends = _EndsOfAnswers(self, prompt_length, opened)
        config = GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            eos_token_id=self.ends.stops,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        with generation_mode(self.model):
            found = self.model.generate(
                **inputs, generation_config=config, stopping_criteria=StoppingCriteriaList([ends])
            )
        written = found[:, prompt_length:].tolist()
        return [self.parse(ids[: ends.lengths.get(row)], opened[row]) for row, ids in enumerate(written)]

    def parse(self, ids: Sequence[int], opened: str) -> Completion:
        return parse_completion(ids, self.ends.stops, self.tokenizer, self.format, opened=opened)


class _EndsOfAnswers(StoppingCriteria):
    """Ends a row where its answer ends."""

    def __init__(self, answerer: RowAnswerer, prompt_length: int, opened: Sequence[str]) -> None:
        self.ends, self.prompt_length, self.opened = answerer.ends, prompt_length, opened
        self.lengths: dict[int, int] = {}  # row -> tokens of its answer; what follows is filler

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        written = input_ids[:, self.prompt_length :]
        for row in self.ends.find_ended_rows(written, self.opened, self.lengths):
            self.lengths.setdefault(row, written.shape[1])
        done = [row in self.lengths for row in range(len(written))]
        return torch.tensor(done, device=input_ids.device)


@contextmanager
def generation_mode(model: Any) -> Iterator[None]:
    """Dropout is off, and the checkpoint's defaults of generation do not count; afterwards all is as before.

    `generate` takes what its options leave open from these defaults. Qwen's repetition penalty would count the prompt's
    option letters as repeated, and greedy would not be greedy.
    """
    own = model.generation_config
    with evaluation_mode(model):
        model.generation_config = GenerationConfig()
        try:
            yield
        finally:
            model.generation_config = own
