"""Batched greedy generation in this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.data.example import Example
from balanced_thinking.data.images import open_image
from balanced_thinking.data.rows import prompt_messages
from balanced_thinking.evaluation.engines.engine import Engine, Judge
from balanced_thinking.runs.records import Prediction
from balanced_thinking.scoring.completion import ends_after_answer
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
        """The generated token ids, without padding and up to and including the stop token.

        Once half of the rows have ended, they are taken out of the batch: a row costs no more than twice its tokens.
        """
        rows = [
            {"id": e.id, "prompt": prompt_messages(e), "images": [open_image(i) for i in e.images]} for e in examples
        ]
        inputs: dict[str, Any] = {k: v.to(self.model.device) for k, v in self.collator.collate_prompts(rows).items()}
        prompt_length = inputs["input_ids"].shape[1]
        limit = prompt_length + self.max_new_tokens
        ids: list[list[int]] = [[] for _ in rows]
        live = list(range(len(rows)))
        while live:
            ended = Ended(self, prompt_length, limit)
            found = self._generate(inputs, limit - inputs["input_ids"].shape[1], ended)
            written = found.sequences[:, prompt_length:].tolist()
            for place, end in ended.ends.items():
                ids[live[place]] = written[place][:end]
            left = [place for place in range(len(live)) if place not in ended.ends]
            live = [live[place] for place in left]
            inputs = self._without_others(found, inputs["attention_mask"], left) if live else {}
        return ids

    def _generate(self, inputs: Mapping[str, Any], max_new_tokens: int, ended: Ended) -> Any:
        config = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=self.stops,
            pad_token_id=self.tokenizer.pad_token_id,
            return_dict_in_generate=True,
        )
        stopping = StoppingCriteriaList([ended])
        with _without_defaults(self.model):
            return self.model.generate(**inputs, generation_config=config, stopping_criteria=stopping)

    def _without_others(self, found: Any, mask_BL: torch.Tensor, left: list[int]) -> dict[str, Any]:
        """What generates on with the rows that are left."""
        index = torch.tensor(left, device=mask_BL.device)
        name = "cache" if "cache" in found else "past_key_values"  # before transformers 5.24
        ids_BL, cache = found.sequences[index], found[name]
        cache.batch_select_indices(index)
        for part in self.model.modules():
            if getattr(part, "rope_deltas", None) is not None:  # Qwen's positions: the model itself keeps a row's shift
                part.rope_deltas = part.rope_deltas[index]
        written = ids_BL.shape[1] - mask_BL.shape[1]
        mask_BL = torch.nn.functional.pad(mask_BL[index], (0, written), value=1)
        return {"input_ids": ids_BL, "attention_mask": mask_BL, name: cache}


@contextmanager
def _without_defaults(model: Any) -> Iterator[None]:
    """Greedy means greedy: `generate` takes what its options leave open from the checkpoint's own settings, such as
    Qwen's repetition penalty, which counts the prompt's option letters as repeated."""
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


class Ended(StoppingCriteria):
    """Ends a row of a generation at a stop token, at the first closing tag of an answer with nothing wrong before it,
    and at `limit` tokens, prompt included. Once half of the rows have ended it ends all, so that one can go on without
    them."""

    def __init__(self, judge: Judge, prompt_length: int, limit: int) -> None:
        self.judge, self.prompt_length, self.limit = judge, prompt_length, limit
        self.tag = judge.format.answer_close if ends_after_answer(judge.format) else ""
        self.ends: dict[int, int] = {}  # row -> tokens until it ended; what follows is filling

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        written = input_ids[:, self.prompt_length :]
        if not self._half(written):  # else it is asked once more after the end, as on Apple's GPUs
            for row in self._ending(written):
                self.ends.setdefault(row, written.shape[1])
        done = [self._half(written) or row in self.ends for row in range(len(written))]
        return torch.tensor(done, device=input_ids.device)

    def _half(self, written: torch.Tensor) -> bool:
        return 2 * len(self.ends) >= len(written)

    def _ending(self, written: torch.Tensor) -> Iterator[int]:
        """The rows that end with what is written, those that ended before among them."""
        if written.shape[1] >= self.limit - self.prompt_length:
            yield from range(len(written))
            return
        last = written[:, -1].tolist()
        yield from (row for row, token in enumerate(last) if token in self.judge.stops)
        if not self.tag:
            return
        tails = self.judge.tokenizer.batch_decode(written[:, -_TAG_TOKENS:], skip_special_tokens=False)
        for row in [row for row, tail in enumerate(tails) if self.tag in tail and row not in self.ends]:
            parsed, _ = generated_segments(written[row].tolist(), self.judge.tokenizer, self.judge.format)
            if self.judge.ends(parsed):
                yield row


def predict(
    generator: Generator, examples: Sequence[Example], *, batch_size: int = 64, scorer: str = "exact"
) -> Iterator[Prediction]:
    """Predictions in the order of the examples."""
    for start in range(0, len(examples), batch_size):
        chunk = examples[start : start + batch_size]
        for example, ids in zip(chunk, generator.complete(chunk), strict=True):
            yield generator.score(example, ids, scorer)
