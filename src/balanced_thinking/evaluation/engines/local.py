"""Batched generation in this process."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from balanced_thinking.batch.answering import generation_mode
from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.batch.turn_end import describe_added_stop, stop_token_ids
from balanced_thinking.data.example import Example
from balanced_thinking.data.images import open_image
from balanced_thinking.data.rows import prompt_messages
from balanced_thinking.evaluation.completion_scorer import CompletionScorer
from balanced_thinking.evaluation.engines.drawing import TokenDraws
from balanced_thinking.evaluation.engines.engine import Engine, Listener
from balanced_thinking.models.processor_parts import takes_pictures, tokenizer_of
from balanced_thinking.segments import ReasoningFormat

logger = logging.getLogger(__name__)


class LocalEngine(Engine):
    """A model in this process, which answers batches of examples.

    Args:
        model: a generating model. processor: prepares its input; of a text-only model, its tokenizer.
        reasoning_format: name or definition of the format of the outputs.
        max_new_tokens: the limit of a completion; a longer one counts as truncated.
    """

    can_sample = True

    def __init__(
        self,
        model: Any,
        processor: Any,
        reasoning_format: str | Mapping[str, Any] | ReasoningFormat = "think-answer",
        max_new_tokens: int = 512,
    ) -> None:
        stops = stop_token_ids(model.generation_config, tokenizer_of(processor))
        super().__init__(CompletionScorer(processor, stops, reasoning_format), max_new_tokens)
        if (end := self.scorer.turn_end) is not None and end.id not in (*stops, None):
            logger.info("%s", describe_added_stop(end, self.tokenizer))
        self.model, self.collator = model, ScaleCollator(processor, self.scorer.format)

    def configure(self, reasoning_format: str | Mapping[str, Any] | ReasoningFormat, max_new_tokens: int) -> None:
        super().configure(reasoning_format, max_new_tokens)
        if self.scorer.format != self.collator.renderer.format:
            self.collator = ScaleCollator(self.collator.processor, self.scorer.format)

    def reason_for_refusal(self, examples: Sequence[Example]) -> str | None:
        """An example has a picture, and the model takes text only."""
        sees = takes_pictures(self.collator.processor)
        pictured = [example.id for example in examples if example.images]
        if sees or not pictured:
            return None
        return (
            f"the model takes text only, but {len(pictured)} of {len(examples)} examples have pictures "
            f"({pictured[0]} is the first); choose a vision-language --model, or --data without pictures"
        )

    def complete(self, examples: Sequence[Example]) -> list[list[int]]:
        """The generated token ids, without padding, up to and including the stop token.

        Once half of the sequences are finished, they leave the batch: a sequence costs at most twice its own tokens.
        """
        return self._complete(examples)

    def stream(self, example: Example, listener: Listener) -> list[int]:
        """`complete` for one example. The listener is called after each token, in this thread."""
        return self._complete([example], listener)[0]

    @torch.inference_mode()
    def _complete(self, examples: Sequence[Example], listener: Listener | None = None) -> list[list[int]]:
        opened = [self.scorer.find_opened(example) for example in examples]
        rows = [
            {"id": e.id, "prompt": prompt_messages(e), "images": [open_image(i) for i in e.images]} for e in examples
        ]
        inputs: dict[str, Any] = {k: v.to(self.model.device) for k, v in self.collator.collate_prompts(rows).items()}
        prompt_length = inputs["input_ids"].shape[1]
        limit = prompt_length + self.max_new_tokens
        ids: list[list[int]] = [[] for _ in rows]
        active = list(range(len(rows)))
        draws = None if self.sampling.is_greedy else TokenDraws(self.sampling, [example.id for example in examples])
        while active:
            finished = FinishedSequences(self.scorer, prompt_length, limit, [opened[row] for row in active], listener)
            drawn = {"logits_processor": draws.processors(active)} if draws else {}
            output = self._generate({**inputs, **drawn}, limit - inputs["input_ids"].shape[1], finished)
            written = output.sequences[:, prompt_length:].tolist()
            for row, length in finished.lengths.items():
                ids[active[row]] = written[row][:length]
            remaining = [row for row in range(len(active)) if row not in finished.lengths]
            active = [active[row] for row in remaining]
            inputs = self._inputs_of_remaining(output, inputs["attention_mask"], remaining) if active else {}
        return ids

    def _generate(self, inputs: Mapping[str, Any], max_new_tokens: int, finished: FinishedSequences) -> Any:
        config = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,  # of what is drawn, too: see TokenDraws
            eos_token_id=self.scorer.stops,
            pad_token_id=self.tokenizer.pad_token_id,
            return_dict_in_generate=True,
        )
        stopping = StoppingCriteriaList([finished])
        with generation_mode(self.model):
            return self.model.generate(**inputs, generation_config=config, stopping_criteria=stopping)

    def _inputs_of_remaining(self, output: Any, mask_BL: torch.Tensor, remaining: list[int]) -> dict[str, Any]:
        """The inputs with which generation continues for the remaining rows."""
        index = torch.tensor(remaining, device=mask_BL.device)
        name = "cache" if "cache" in output else "past_key_values"  # before transformers 5.24
        ids_BL, cache = output.sequences[index], output[name]
        cache.batch_select_indices(index)
        for part in self.model.modules():
            if getattr(part, "rope_deltas", None) is not None:  # Qwen: the model keeps each row's shift of positions
                part.rope_deltas = part.rope_deltas[index]
        written = ids_BL.shape[1] - mask_BL.shape[1]
        mask_BL = torch.nn.functional.pad(mask_BL[index], (0, written), value=1)
        return {"input_ids": ids_BL, "attention_mask": mask_BL, name: cache}


class FinishedSequences(StoppingCriteria):
    """Finishes a sequence at a stop token, at the first closing tag of a well-formed answer, and at `limit` tokens,
    prompt included. Once half of the sequences are finished it stops the batch, which continues without them. `opened`
    is the thinking that each row's prompt has opened; empty for none. `listener` hears of each token of the first row,
    and may finish it."""

    def __init__(
        self,
        scorer: CompletionScorer,
        prompt_length: int,
        limit: int,
        opened: Sequence[str] = (),
        listener: Listener | None = None,
    ) -> None:
        self.prompt_length, self.limit, self.opened = prompt_length, limit, opened
        self._ends, self._listener = scorer.ends, listener
        self.lengths: dict[int, int] = {}  # row -> its generated tokens; what follows is filler

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        written = input_ids[:, self.prompt_length :]
        if not self._half_finished(written):  # on Apple's GPUs it is called once more after the end
            for row in self._finished_rows(written):
                self.lengths.setdefault(row, written.shape[1])
        done = [self._half_finished(written) or row in self.lengths for row in range(len(written))]
        return torch.tensor(done, device=input_ids.device)

    def _half_finished(self, written: torch.Tensor) -> bool:
        return 2 * len(self.lengths) >= len(written)

    def _finished_rows(self, written: torch.Tensor) -> Iterator[int]:
        """The rows that are finished by now; earlier ones may be among them."""
        goes_on = self._listener is None or self._listener(written[0].tolist())
        if not goes_on or written.shape[1] >= self.limit - self.prompt_length:
            yield from range(len(written))
            return
        yield from self._ends.find_ended_rows(written, self.opened, self.lengths)
