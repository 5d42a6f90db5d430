"""Batches that fit in memory: one that does not is halved, and so are those that follow."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from balanced_thinking.config.errors import BalancedThinkingError
from balanced_thinking.data.example import Example
from balanced_thinking.data.rows import prompt_messages
from balanced_thinking.evaluation.engines.engine import Engine
from balanced_thinking.evaluation.engines.local import LocalEngine
from balanced_thinking.system.memory import describe_memory_error, free_device_memory

logger = logging.getLogger(__name__)


class EvaluationMemoryError(BalancedThinkingError, MemoryError):
    """A single example for which there is not enough memory."""


@dataclass
class Answered:
    """Positions of examples that were answered together, and the ids that were generated for each."""

    positions: Sequence[int]
    completions: list[list[int]]


class FittingBatches:
    """Answers batches in as many parts as memory needs. `size` is the most examples of a part; None: no limit yet.

    A server and vLLM form their own batches, so a lack of memory there is theirs.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.size: int | None = None

    def answer(self, examples: Sequence[Example], positions: Sequence[int]) -> Iterator[Answered]:
        """Raises EvaluationMemoryError where one example alone does not fit."""
        rest = list(positions)
        while rest:
            part = rest[: self.size]
            lack = None
            try:
                completions = self.engine.complete([examples[i] for i in part])
            except (RuntimeError, MemoryError, OSError) as error:  # its traceback holds the batch's tensors
                lack = describe_memory_error(error) if isinstance(self.engine, LocalEngine) else None
                if lack is None:
                    raise
            if lack is None:
                yield Answered(part, completions)
                rest = rest[len(part) :]
            else:
                self._halve(lack, [examples[i] for i in part])

    def _halve(self, lack: str, examples: Sequence[Example]) -> None:
        free_device_memory()
        longest = max(examples, key=lambda example: len(example.question))
        if len(examples) == 1:
            raise EvaluationMemoryError(
                f"{lack} while answering {longest.id} alone ({self._describe_prompt(longest)}, and up to "
                f"{self.engine.max_new_tokens:,} tokens of answer). Lower --max-new-tokens or the pictures' size "
                "(--image_options.max_pixels), or leave this example out. The answers so far are kept"
            )
        self.size = len(examples) // 2
        logger.warning(
            "%s while answering %d examples at a time (the longest question: %s); the evaluation goes on with %d",
            lack,
            len(examples),
            longest.id,
            self.size,
        )

    def _describe_prompt(self, example: Example) -> str:
        assert isinstance(self.engine, LocalEngine)
        row = {"id": example.id, "prompt": prompt_messages(example), "images": list(example.images)}
        tokens = self.engine.collator.collate_prompts([row])["input_ids"].shape[1]
        pictures = f" with {len(example.images)} pictures" if example.images else ""
        return f"a prompt of {tokens:,} tokens{pictures}"
